"""Deliver what endpoints are to be told: claim what is due, send it side by side, record each answer."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import structlog

from core.database import Sessions
from core.tables import Job, WebhookDelivery, WebhookEndpoint
from core.webhooks import claim_due_deliveries, disable_endpoint, message_body, message_headers, record_answer
from worker.webhook_client import SECONDS, Answer, post

AT_ONCE = 16
HOLD = timedelta(seconds=4 * SECONDS)  # a sender that has not recorded an answer by then is dead
GONE = 410

log = structlog.get_logger()


def deliver_due(
    sessions: Sessions, *, allow_private: bool, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> int:
    """Send everything that is due now, each message once; returns how many were sent."""
    sent = 0
    with ThreadPoolExecutor(AT_ONCE) as threads:
        while batch := _claim(sessions, clock()):
            list(threads.map(lambda delivery: _deliver(sessions, delivery, allow_private, clock), batch))
            sent += len(batch)
    return sent


def _claim(sessions: Sessions, now: datetime) -> list[WebhookDelivery]:
    with sessions.begin() as session:
        return list(session.scalars(claim_due_deliveries(now, limit=AT_ONCE, hold=HOLD)))


def _deliver(sessions: Sessions, delivery: WebhookDelivery, allow_private: bool, clock: Callable[[], datetime]) -> None:
    with sessions() as session:
        endpoint = session.get(WebhookEndpoint, delivery.endpoint_id)
        job = session.get(Job, delivery.job_id) if delivery.job_id else None
    if endpoint is None:
        return  # deleted meanwhile, and its deliveries with it
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
