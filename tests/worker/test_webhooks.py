"""Webhooks: written by the job's own transaction, signed, retried on schedule, never sent once an endpoint is gone."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, update
from standardwebhooks.webhooks import Webhook

from core.database import Sessions
from core.ids import DELIVERY, JOB, encode_id, new_id
from core.lifecycle import JobKind, JobStatus
from core.tables import Account, Job, WebhookDelivery, WebhookEndpoint
from core.webhooks import RETRY_DELAYS, TEST_EVENT, WebhookEvent, new_secret
from tests.waiting import eventually
from tests.worker.receiver import Receiver, receiver
from worker import webhooks
from worker.webhook_client import Answer
from worker.webhooks import deliver_due


@pytest.fixture
def told() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC) + timedelta(seconds=1)

    def __call__(self) -> datetime:
        return self.now


def make_endpoint(sessions: Sessions, url: str, events: list[str] | None = None) -> WebhookEndpoint:
    with sessions.begin() as session:
        account = Account(name=str(new_id()))
        session.add(account)
        session.flush()
        endpoint = WebhookEndpoint(
            account_id=account.id, url=url, events=events or list(WebhookEvent), secret=new_secret()
        )
        session.add(endpoint)
    return endpoint


def end_a_job(sessions: Sessions, account_id: UUID, status: JobStatus = JobStatus.SUCCEEDED) -> Job:
    with sessions.begin() as session:
        job = Job(account_id=account_id, kind=JobKind.GENERATE, base_model="mini", seed=1, client_reference="order-7")
        session.add(job)
        session.flush()
        session.execute(update(Job).where(Job.id == job.id).values(status=JobStatus.RUNNING, attempt=1))
        session.execute(update(Job).where(Job.id == job.id).values(status=status))
    return job


def deliveries(sessions: Sessions) -> list[WebhookDelivery]:
    with sessions() as session:
        return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))


def deliver(sessions: Sessions, clock: Clock | None = None) -> int:
    return deliver_due(sessions, allow_private=True, clock=clock or Clock())


def test_a_finished_job_is_told_and_the_official_library_verifies_it(sync_sessions: Sessions, told: Receiver) -> None:
    endpoint = make_endpoint(sync_sessions, told.url, ["job.succeeded"])
    job = end_a_job(sync_sessions, endpoint.account_id)
    assert deliver(sync_sessions) == 1
    headers, body = told.messages[0]
    message = Webhook(endpoint.secret).verify(body, headers)
    assert message["type"] == "job.succeeded"
    assert message["data"] == {
        "id": encode_id(JOB, job.id),
        "status": "succeeded",
        "kind": "generate",
        "subject_id": None,
        "client_reference": "order-7",
    }
    (delivery,) = deliveries(sync_sessions)
    assert (delivery.response_status, delivery.tries, delivery.next_attempt_at) == (200, 1, None)
    assert delivery.delivered_at is not None
    assert headers["webhook-id"] == encode_id(DELIVERY, delivery.id)


def test_an_endpoint_is_told_what_it_asked_for_and_nothing_of_other_accounts(
    sync_sessions: Sessions, told: Receiver
) -> None:
    endpoint = make_endpoint(sync_sessions, told.url, ["job.started", "job.failed"])
    make_endpoint(sync_sessions, told.url)
    end_a_job(sync_sessions, endpoint.account_id)
    end_a_job(sync_sessions, endpoint.account_id, JobStatus.FAILED)
    deliver(sync_sessions)
    assert sorted(json.loads(body)["type"] for _, body in told.messages) == ["job.failed", "job.started", "job.started"]


def test_a_job_that_is_rolled_back_is_never_told(sync_sessions: Sessions, told: Receiver) -> None:
    endpoint = make_endpoint(sync_sessions, told.url)
    with sync_sessions() as session:
        job = Job(account_id=endpoint.account_id, kind=JobKind.GENERATE, base_model="mini", seed=1)
        session.add(job)
        session.flush()
        session.execute(update(Job).where(Job.id == job.id).values(status=JobStatus.RUNNING, attempt=1))
        session.rollback()
    assert deliver(sync_sessions) == 0


def test_a_failing_receiver_is_tried_on_schedule_and_then_given_up(sync_sessions: Sessions, told: Receiver) -> None:
    told.status = 500
    endpoint = make_endpoint(sync_sessions, told.url, ["job.succeeded"])
    end_a_job(sync_sessions, endpoint.account_id)
    clock = Clock()
    for wait in RETRY_DELAYS:
        clock.now += wait - timedelta(seconds=1)
        too_early = wait > timedelta(seconds=1)
        if too_early:
            assert deliver(sync_sessions, clock) == 0, wait
        clock.now += timedelta(seconds=2)
        assert deliver(sync_sessions, clock) == 1, wait
    clock.now += timedelta(days=30)
    assert deliver(sync_sessions, clock) == 0
    (delivery,) = deliveries(sync_sessions)
    assert (delivery.tries, delivery.delivered_at, delivery.error) == (10, None, "the receiver answered 500")
    assert len({body for _, body in told.messages}) == 1
    assert len({headers["webhook-id"] for headers, _ in told.messages}) == 1


def test_410_disables_the_endpoint(sync_sessions: Sessions, told: Receiver) -> None:
    told.status = 410
    endpoint = make_endpoint(sync_sessions, told.url, ["job.started", "job.succeeded"])
    end_a_job(sync_sessions, endpoint.account_id)
    deliver(sync_sessions)
    end_a_job(sync_sessions, endpoint.account_id)
    assert len(deliveries(sync_sessions)) == 2
    with sync_sessions() as session:
        assert session.get_one(WebhookEndpoint, endpoint.id).disabled_at is not None


def test_during_a_rotation_both_secrets_verify(sync_sessions: Sessions, told: Receiver) -> None:
    endpoint = make_endpoint(sync_sessions, told.url, ["job.succeeded"])
    old, new, clock = endpoint.secret, new_secret(), Clock()
    with sync_sessions.begin() as session:
        row = session.get_one(WebhookEndpoint, endpoint.id)
        row.secret, row.previous_secret, row.previous_secret_expires_at = new, old, clock.now + timedelta(hours=1)
    end_a_job(sync_sessions, endpoint.account_id)
    deliver(sync_sessions, clock)
    headers, body = told.messages[0]
    for secret in (old, new):
        Webhook(secret).verify(body, headers)


def test_a_sender_that_died_leaves_its_message_due_again(sync_sessions: Sessions, told: Receiver) -> None:
    endpoint = make_endpoint(sync_sessions, told.url, ["job.succeeded"])
    end_a_job(sync_sessions, endpoint.account_id)
    clock = Clock()
    assert len(webhooks._claim(sync_sessions, clock(), [])) == 1
    assert deliver(sync_sessions, clock) == 0
    clock.now += webhooks.HOLD + timedelta(seconds=1)
    assert deliver(sync_sessions, clock) == 1


def test_two_senders_share_the_work_and_send_nothing_twice(sync_sessions: Sessions, told: Receiver) -> None:
    endpoint = make_endpoint(sync_sessions, told.url, ["job.succeeded"])
    for _ in range(20):
        end_a_job(sync_sessions, endpoint.account_id)
    clock = Clock()
    with ThreadPoolExecutor(2) as threads:
        sent = sum(threads.map(lambda _: deliver(sync_sessions, clock), range(2)))
    assert sent == len(told.messages) == len({headers["webhook-id"] for headers, _ in told.messages}) == 20


def test_a_test_ping_names_its_endpoint(sync_sessions: Sessions, told: Receiver) -> None:
    endpoint = make_endpoint(sync_sessions, told.url)
    with sync_sessions.begin() as session:
        session.add(WebhookDelivery(endpoint_id=endpoint.id, event=TEST_EVENT, next_attempt_at=datetime.now(UTC)))
    deliver(sync_sessions)
    assert json.loads(told.messages[0][1])["type"] == "webhook.test"


def test_who_never_answers_keeps_nobody_else_waiting(sync_sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = make_endpoint(sync_sessions, "https://silent.example", ["job.succeeded"])
    prompt = make_endpoint(sync_sessions, "https://prompt.example", ["job.succeeded"])
    for _ in range(3 * webhooks.AT_ONCE):
        end_a_job(sync_sessions, silent.account_id)
    for _ in range(10):
        end_a_job(sync_sessions, prompt.account_id)
    answers, waiting = threading.Event(), threading.Semaphore(0)

    def post(url: str, *_: object, **__: object) -> Answer:
        if "silent" in url:
            waiting.release()
            answers.wait(30)
        return Answer(200, None)

    def told(endpoint: WebhookEndpoint) -> int:
        return sum(own.delivered_at is not None for own in deliveries(sync_sessions) if own.endpoint_id == endpoint.id)

    monkeypatch.setattr(webhooks, "post", post)
    with ThreadPoolExecutor(1) as beside:
        sent = beside.submit(deliver_due, sync_sessions, allow_private=True)  # by a clock that goes on
        try:
            eventually(lambda: told(prompt) == 10)
            end_a_job(sync_sessions, prompt.account_id)  # one more, while the silent one keeps its threads
            eventually(lambda: told(prompt) == 11)
            assert told(silent) == 0
            taken = 0
            while waiting.acquire(blocking=False):
                taken += 1
            assert taken == webhooks.OF_ONE_ACCOUNT
        finally:
            answers.set()
        assert sent.result() == 3 * webhooks.AT_ONCE + 11
    assert told(silent) == 3 * webhooks.AT_ONCE


def test_a_process_that_is_to_end_claims_nothing(sync_sessions: Sessions, told: Receiver) -> None:
    endpoint = make_endpoint(sync_sessions, told.url, ["job.succeeded"])
    end_a_job(sync_sessions, endpoint.account_id)
    assert deliver_due(sync_sessions, allow_private=True, clock=Clock(), is_stopping=lambda: True) == 0
    assert told.messages == []


def test_an_address_that_nothing_can_be_sent_to_is_a_failed_try_like_any(sync_sessions: Sessions) -> None:
    endpoint = make_endpoint(sync_sessions, "https://m\u00fcller.example/h\u00f6k", ["job.succeeded"])
    end_a_job(sync_sessions, endpoint.account_id)
    assert deliver(sync_sessions) == 1
    (delivery,) = deliveries(sync_sessions)
    assert (delivery.tries, delivery.response_status, delivery.delivered_at) == (1, None, None)
    assert delivery.error
    assert deliver(sync_sessions) == 0
