"""What endpoints are told, how often it is tried, and how it is signed (Standard Webhooks 1.0)."""

import base64
import json
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, literal, select, update
from sqlalchemy.sql.dml import ReturningUpdate, Update
from standardwebhooks.webhooks import Webhook

from core.ids import DELIVERY, JOB, SUBJECT, WEBHOOK, encode_id
from core.tables import Job, WebhookDelivery, WebhookEndpoint

SECRET_BYTES = 32
# Before the first try, the second, and so on: ten tries over three days.
RETRY_DELAYS = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)


class WebhookEvent(StrEnum):
    """What an endpoint may ask to be told."""

    JOB_STARTED = "job.started"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELED = "job.canceled"
    JOB_REJECTED = "job.rejected"
    JOB_EXPIRED = "job.expired"
    SUBJECT_ERASED = "subject.erased"


TEST_EVENT = "webhook.test"


def new_secret() -> str:
    """A signing secret, shown once."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def claim_due_deliveries(
    now: datetime, *, limit: int, each: int, under_way: Mapping[UUID, int], hold: timedelta
) -> ReturningUpdate[WebhookDelivery]:
    """Take what is due, accounts in turn, for none more than `each` at a time: their messages `under_way` count.

    Should the sender die, the same message is due again once `hold` has passed.
    """
    account, due_at = WebhookEndpoint.account_id, WebhookDelivery.next_attempt_at
    nth = func.row_number().over(partition_by=account, order_by=(due_at, WebhookDelivery.id))
    busy = case(under_way, value=account, else_=0) if under_way else literal(0)
    ranked = (
        select(WebhookDelivery.id, due_at, (nth + busy).label("turn"))
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(due_at <= now)
        .cte("ranked")
    )
    # Window functions don't go with FOR UPDATE: rank first, then lock and look again.
    due = (
        select(WebhookDelivery.id)
        .join(ranked, ranked.c.id == WebhookDelivery.id)
        .where(ranked.c.turn <= each, due_at <= now)
        .order_by(ranked.c.turn, ranked.c.next_attempt_at)
        .limit(limit)
        .with_for_update(of=WebhookDelivery, skip_locked=True)
        .cte("due")
    )
    return (
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(select(due.c.id)))
        .values(tries=WebhookDelivery.tries + 1, next_attempt_at=now + hold)
        .returning(WebhookDelivery)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


def record_answer(
    delivery: WebhookDelivery, now: datetime, *, response_status: int | None, error: str | None
) -> Update:
    """Delivered; or due again after the next delay; or given up."""
    delivered = error is None
    due_again = None if delivered or delivery.tries >= len(RETRY_DELAYS) else now + RETRY_DELAYS[delivery.tries]
    return (
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery.id, WebhookDelivery.tries == delivery.tries)
        .values(
            delivered_at=now if delivered else None,
            next_attempt_at=due_again,
            response_status=response_status,
            error=error,
        )
        .execution_options(synchronize_session=False)
    )


def disable_endpoint(endpoint: WebhookEndpoint, now: datetime) -> Update:
    """It said 410 Gone: tell it nothing more."""
    return (
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint.id, WebhookEndpoint.disabled_at.is_(None))
        .values(disabled_at=now)
        .execution_options(synchronize_session=False)
    )


def message_body(delivery: WebhookDelivery, job: Job | None) -> bytes:
    """The thin body: which event, and the id to ask about. The same bytes in every try."""
    return json.dumps(
        {"type": delivery.event, "timestamp": delivery.created_at.isoformat(), "data": _subject_matter(delivery, job)},
        separators=(",", ":"),
    ).encode()


def _subject_matter(delivery: WebhookDelivery, job: Job | None) -> dict[str, Any]:
    subject_id = encode_id(SUBJECT, delivery.subject_id) if delivery.subject_id else None
    if delivery.job_id is not None:
        return {
            "id": encode_id(JOB, delivery.job_id),
            "status": delivery.event.removeprefix("job.").replace("started", "running"),
            "kind": job.kind if job else None,
            "subject_id": subject_id,
            "client_reference": job.client_reference if job else None,
        }
    if delivery.event == WebhookEvent.SUBJECT_ERASED:
        return {"id": subject_id, "status": "erased"}
    return {"id": encode_id(WEBHOOK, delivery.endpoint_id), "status": "test"}


def message_headers(
    delivery: WebhookDelivery, endpoint: WebhookEndpoint, body: bytes, now: datetime
) -> dict[bytes | str, bytes | str]:
    """Id, time and signatures: one for each secret that is valid, so that a rotation breaks nothing."""
    message_id = encode_id(DELIVERY, delivery.id)
    valid = [endpoint.secret]
    rotated_until = endpoint.previous_secret_expires_at
    if endpoint.previous_secret and rotated_until and now < rotated_until:
        valid.append(endpoint.previous_secret)
    return {
        "content-type": "application/json",
        "user-agent": "hyperdreambooth-webhooks/1",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, now, body.decode()) for secret in valid),
    }
