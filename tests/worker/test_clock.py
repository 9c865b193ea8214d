"""Celery's clock in a real housekeeping worker: nobody rings, and what is due is done all the same."""

from functools import partial
from pathlib import Path

import pytest
import redis
from sqlalchemy import select
from standardwebhooks.webhooks import Webhook

from core.lifecycle import JobKind, WorkerRole
from core.queue import HOUSEKEEPING_QUEUE, SWEEP, TICKS_QUEUE, celery_app, configure_queue, ring
from core.settings import Settings
from core.storage import ObjectStore
from core.tables import WebhookDelivery, WorkerProcess
from core.webhooks import TEST_EVENT
from tests.crew import Crew, crew_of
from tests.factories import in_future
from tests.waiting import eventually
from tests.worker.receiver import receiver
from tests.worker.test_webhooks import make_endpoint

BACKLOG = 3000


def has_swept(crew: Crew) -> bool:
    """The sweeper reports first of all."""
    with crew.sessions() as session:
        return WorkerRole.HOUSEKEEPING in session.scalars(select(WorkerProcess.role)).all()


@pytest.mark.slow
def test_webhooks_are_delivered_and_the_sweeper_sweeps_by_the_clock_alone(
    settings: Settings, clean_slate: None, broker: redis.Redis, store: ObjectStore, tmp_path: Path
) -> None:
    quick = settings.model_copy(update={"webhook_seconds": 0.3, "webhook_private_addresses": True})
    with receiver() as told, crew_of(quick, store, tmp_path) as crew:
        endpoint = make_endpoint(crew.sessions, told.url)
        crew.start(WorkerRole.HOUSEKEEPING)
        for count in (1, 2):
            with crew.sessions.begin() as session:
                session.add(WebhookDelivery(endpoint_id=endpoint.id, event=TEST_EVENT, next_attempt_at=in_future(-1)))
            eventually(partial(told.has_heard, count), within=120)
        eventually(partial(has_swept, crew), within=120)
    for headers, body in told.messages:
        assert Webhook(endpoint.secret).verify(body, headers)["type"] == TEST_EVENT


@pytest.mark.slow
def test_no_backlog_of_bells_holds_up_the_clock(
    settings: Settings, clean_slate: None, broker: redis.Redis, store: ObjectStore, tmp_path: Path
) -> None:
    configure_queue(settings)
    for _ in range(BACKLOG):
        assert ring(JobKind.ERASE, settings.model_name)
        celery_app.send_task(SWEEP, queue=TICKS_QUEUE, expires=0.001, ignore_result=True)  # nobody was there in time
    quick = settings.model_copy(update={"webhook_seconds": 0.3, "webhook_private_addresses": True})
    with receiver() as told, crew_of(quick, store, tmp_path) as crew:
        endpoint = make_endpoint(crew.sessions, told.url)
        with crew.sessions.begin() as session:
            session.add(WebhookDelivery(endpoint_id=endpoint.id, event=TEST_EVENT, next_attempt_at=in_future(-1)))
        crew.start(WorkerRole.HOUSEKEEPING)
        eventually(partial(told.has_heard, 1), within=120)
        assert broker.llen(HOUSEKEEPING_QUEUE) > BACKLOG / 2
