"""Deliver what endpoints are to be told: claim what is due, send it side by side, record each answer."""

import math
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import select

from core.database import Sessions
from core.tables import Job, WebhookDelivery, WebhookEndpoint
from core.webhooks import claim_due_deliveries, disable_endpoint, message_body, message_headers, record_answer
from worker.webhook_client import SECONDS, Answer, post

AT_ONCE = 32
OF_ONE_ACCOUNT = 8  # who never answers keeps a thread for 15 seconds, and no more of them than these
LOOK_SECONDS = 1.0  # how long a new message may wait for a look while others are under way
HOLD = timedelta(seconds=4 * SECONDS)  # a sender that has not recorded an answer by then is dead
GONE = 410

log = structlog.get_logger()


def deliver_due(
    sessions: Sessions,
    *,
    allow_private: bool,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    is_stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Send everything that is due, each message once, until nothing is; returns how many were sent."""
    sent = 0
    under_way: dict[Future[None], UUID] = {}  # whose message each thread sends
    looked = -math.inf
    with ThreadPoolExecutor(AT_ONCE) as threads:
        while True:
            free, now = AT_ONCE - len(under_way), time.monotonic()
            # To claim is to look at all that is due: for a few free threads, now and then is often enough.
            is_time = free >= OF_ONE_ACCOUNT or (free > 0 and now - looked >= LOOK_SECONDS)
            if is_time and not is_stopping():
                looked = now
                for delivery, endpoint in _claim(sessions, clock(), under_way.values()):
                    sending = threads.submit(_deliver, sessions, delivery, endpoint, allow_private, clock)
                    under_way[sending] = endpoint.account_id
            if not under_way:
                return sent
            done, _ = wait(under_way, LOOK_SECONDS, return_when=FIRST_COMPLETED)
            for sending in done:
                del under_way[sending]
                sending.result()
            sent += len(done)


def _claim(
    sessions: Sessions, now: datetime, under_way: Collection[UUID]
) -> list[tuple[WebhookDelivery, WebhookEndpoint]]:
    limit, busy = AT_ONCE - len(under_way), Counter(under_way)
    statement = claim_due_deliveries(now, limit=limit, each=OF_ONE_ACCOUNT, under_way=busy, hold=HOLD)
    with sessions.begin() as session:
        claimed = session.scalars(statement).all()
        ids = {delivery.endpoint_id for delivery in claimed}
        endpoints = {row.id: row for row in session.scalars(select(WebhookEndpoint).where(WebhookEndpoint.id.in_(ids)))}
    return [(delivery, endpoints[delivery.endpoint_id]) for delivery in claimed]


def _deliver(
    sessions: Sessions,
    delivery: WebhookDelivery,
    endpoint: WebhookEndpoint,
    allow_private: bool,
    clock: Callable[[], datetime],
) -> None:
    with sessions() as session:
        job = session.get(Job, delivery.job_id) if delivery.job_id else None
    if endpoint.disabled_at is not None:
        answer = Answer(None, "the endpoint is disabled")
    else:
        body, now = message_body(delivery, job), clock()
        answer = post(endpoint.url, message_headers(delivery, endpoint, body, now), body, allow_private=allow_private)
    _record(sessions, delivery, endpoint, answer, clock())


def _record(
    sessions: Sessions, delivery: WebhookDelivery, endpoint: WebhookEndpoint, answer: Answer, now: datetime
) -> None:
    with sessions.begin() as session:
        session.execute(record_answer(delivery, now, response_status=answer.status, error=answer.error))
        if answer.status == GONE:
            session.execute(disable_endpoint(endpoint, now))
    log.info("webhook.tried", event_type=delivery.event, tries=delivery.tries, status=answer.status, error=answer.error)
