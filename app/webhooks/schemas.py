"""Endpoints that are told, and the log of what they were told."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.paging import Page
from core.ids import DELIVERY, JOB, SUBJECT, WEBHOOK, encode_id
from core.tables import WebhookDelivery, WebhookEndpoint
from core.webhooks import WebhookEvent

MAX_OVERLAP_SECONDS = 7 * 86_400
# ASCII, as on the wire: other hosts in Punycode, other paths percent-encoded. Plain http is for tests of ours alone.
ADDRESS = r"^https?://[\x21-\x7e]+$"
Url = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000, pattern=ADDRESS)]


class NewWebhookEndpoint(BaseModel):
    """Where to tell, and what."""

    model_config = ConfigDict(extra="forbid")

    url: Url = Field(
        description="An https address, in ASCII, that anybody could reach.", examples=["https://example.com/hook"]
    )
    events: list[WebhookEvent] = Field(
        default_factory=lambda: list(WebhookEvent), min_length=1, description="All of them if absent."
    )


class SecretRotation(BaseModel):
    """How long the old secret signs beside the new one."""

    model_config = ConfigDict(extra="forbid")

    overlap_seconds: int = Field(86_400, ge=0, le=MAX_OVERLAP_SECONDS)


class WebhookEndpointRead(BaseModel):
    """An endpoint. Its secret is shown when it is made or rotated, and never again."""

    id: str = Field(examples=["whk_01m8398gmne0a84bdbs8wn5qd6"])
    url: str
    events: list[WebhookEvent]
    secret: str | None = Field(description="`whsec_...`, once; null afterwards.")
    previous_secret_expires_at: datetime | None
    created_at: datetime
    disabled_at: datetime | None = Field(description="When it answered 410 Gone.")


class WebhookEndpointList(Page):
    """A page of endpoints."""

    webhook_endpoints: list[WebhookEndpointRead]


class DeliveryRead(BaseModel):
    """One message, and how its delivery went."""

    id: str = Field(description="The message's `webhook-id`.", examples=["dlv_01m8398gmne0a84bdbs8wn5qd6"])
    event: str
    job_id: str | None
    subject_id: str | None
    tries: int
    created_at: datetime
    delivered_at: datetime | None
    next_attempt_at: datetime | None = Field(description="null: delivered, or given up.")
    response_status: int | None
    error: str | None


class DeliveryList(Page):
    """A page of deliveries."""

    deliveries: list[DeliveryRead]


class WebhookMessageData(BaseModel):
    """What the message is about. Ask the API for the rest."""

    id: str = Field(examples=["job_01m8398gmne0a84bdbs8wn5qd6"])
    status: str
    kind: str | None = None
    subject_id: str | None = None
    client_reference: str | None = None


class WebhookMessage(BaseModel):
    """The body that an endpoint receives, signed as Standard Webhooks 1.0 says."""

    type: WebhookEvent | Literal["webhook.test"]
    timestamp: datetime
    data: WebhookMessageData


def endpoint_read(endpoint: WebhookEndpoint, *, secret: str | None = None) -> WebhookEndpointRead:
    """The endpoint as callers see it."""
    return WebhookEndpointRead(
        id=encode_id(WEBHOOK, endpoint.id),
        url=endpoint.url,
        events=[WebhookEvent(event) for event in endpoint.events],
        secret=secret,
        previous_secret_expires_at=endpoint.previous_secret_expires_at,
        created_at=endpoint.created_at,
        disabled_at=endpoint.disabled_at,
    )


def delivery_read(delivery: WebhookDelivery) -> DeliveryRead:
    """The delivery as callers see it."""
    told: dict[str, Any] = {
        "job_id": encode_id(JOB, delivery.job_id) if delivery.job_id else None,
        "subject_id": encode_id(SUBJECT, delivery.subject_id) if delivery.subject_id else None,
    }
    return DeliveryRead(
        id=encode_id(DELIVERY, delivery.id),
        event=delivery.event,
        tries=delivery.tries,
        created_at=delivery.created_at,
        delivered_at=delivery.delivered_at,
        next_attempt_at=delivery.next_attempt_at,
        response_status=delivery.response_status,
        error=delivery.error,
        **told,
    )
