"""`/v1/webhook-endpoints`: who is told, what they were told, and tell it again."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response

from app.dependencies import AdminDep, PartsDep, RepeatsDep, SessionDep, UnitOfWorkDep, typed_id
from app.documented import header, problems
from app.idempotency import replay_headers
from app.links import webhook_endpoint_path
from app.paging import PageDep, next_cursor, next_link
from app.webhooks import service
from app.webhooks.schemas import (
    DeliveryList,
    DeliveryRead,
    NewWebhookEndpoint,
    SecretRotation,
    WebhookEndpointList,
    WebhookEndpointRead,
    delivery_read,
    endpoint_read,
)
from core.errors import IdempotencyInFlight, IdempotencyMismatch, NotFound
from core.ids import DELIVERY, WEBHOOK

router = APIRouter(prefix="/v1/webhook-endpoints", tags=["webhooks"])


def endpoint_id(endpoint_id: Annotated[str, Path(examples=["whk_01m8398gmne0a84bdbs8wn5qd6"])]) -> UUID:
    """The endpoint in the path."""
    return typed_id(WEBHOOK, endpoint_id)


def delivery_id(delivery_id: Annotated[str, Path(examples=["dlv_01m8398gmne0a84bdbs8wn5qd6"])]) -> UUID:
    """The delivery in the path."""
    return typed_id(DELIVERY, delivery_id)


REPEATED = problems(IdempotencyMismatch, IdempotencyInFlight)
EndpointIdDep = Annotated[UUID, Depends(endpoint_id)]
DeliveryIdDep = Annotated[UUID, Depends(delivery_id)]


@router.post("", status_code=201, responses=REPEATED | {201: {"headers": {"Location": header("The endpoint.")}}})
async def create_webhook_endpoint(
    body: NewWebhookEndpoint,
    caller: AdminDep,
    uow: UnitOfWorkDep,
    parts: PartsDep,
    repeats: RepeatsDep,
    response: Response,
) -> WebhookEndpointRead:
    """Be told when jobs start and end. The secret in the answer is shown this once."""
    endpoint, replayed = await service.create_endpoint(
        uow.session,
        caller,
        body,
        repeats,
        allow_private=parts.settings.webhook_private_addresses,
    )
    response.headers["Location"] = webhook_endpoint_path(endpoint.id)
    response.headers.update(replay_headers(replayed=replayed))
    return endpoint_read(endpoint, secret=None if replayed else endpoint.secret)


@router.get("", responses=problems())
async def list_webhook_endpoints(
    caller: AdminDep, session: SessionDep, page: PageDep, request: Request, response: Response
) -> WebhookEndpointList:
    """Endpoints, newest first."""
    rows = await service.list_endpoints(session, caller, page)
    shown = [endpoint_read(row) for row in rows[: page.limit]]
    cursor = next_cursor([row.id for row in rows], page)
    response.headers.update(next_link(request, cursor))
    return WebhookEndpointList(webhook_endpoints=shown, next_cursor=cursor)


@router.get("/{endpoint_id}", responses=problems(NotFound))
async def get_webhook_endpoint(
    caller: AdminDep, endpoint_id: EndpointIdDep, session: SessionDep
) -> WebhookEndpointRead:
    """An endpoint, without its secret."""
    return endpoint_read(await service.load_endpoint(session, caller, endpoint_id))


@router.delete("/{endpoint_id}", status_code=204, responses=problems(NotFound))
async def delete_webhook_endpoint(caller: AdminDep, endpoint_id: EndpointIdDep, uow: UnitOfWorkDep) -> None:
    """Tell it nothing more, and forget what it was told."""
    await service.delete_endpoint(uow.session, caller, endpoint_id)


@router.post("/{endpoint_id}/rotate-secret", responses=REPEATED | problems(NotFound))
async def rotate_webhook_secret(
    caller: AdminDep,
    endpoint_id: EndpointIdDep,
    body: SecretRotation,
    uow: UnitOfWorkDep,
    repeats: RepeatsDep,
    response: Response,
) -> WebhookEndpointRead:
    """A new secret, shown this once; messages carry signatures of both until the overlap ends."""
    overlap = timedelta(seconds=body.overlap_seconds)
    endpoint, replayed = await service.rotate_secret(uow.session, caller, endpoint_id, repeats, overlap=overlap)
    response.headers.update(replay_headers(replayed=replayed))
    return endpoint_read(endpoint, secret=None if replayed else endpoint.secret)


@router.post("/{endpoint_id}/test", status_code=202, responses=REPEATED | problems(NotFound))
async def test_webhook_endpoint(
    caller: AdminDep, endpoint_id: EndpointIdDep, uow: UnitOfWorkDep, repeats: RepeatsDep, response: Response
) -> DeliveryRead:
    """Send a message of type `webhook.test`."""
    delivery, replayed = await service.send_test(uow.session, caller, endpoint_id, repeats)
    response.headers.update(replay_headers(replayed=replayed))
    return delivery_read(delivery)


@router.get("/{endpoint_id}/deliveries", responses=problems(NotFound))
async def list_webhook_deliveries(
    caller: AdminDep,
    endpoint_id: EndpointIdDep,
    session: SessionDep,
    page: PageDep,
    request: Request,
    response: Response,
) -> DeliveryList:
    """What the endpoint was told, newest first."""
    rows = await service.list_deliveries(session, caller, endpoint_id, page)
    shown = [delivery_read(row) for row in rows[: page.limit]]
    cursor = next_cursor([row.id for row in rows], page)
    response.headers.update(next_link(request, cursor))
    return DeliveryList(deliveries=shown, next_cursor=cursor)


@router.post("/{endpoint_id}/deliveries/{delivery_id}/replay", status_code=202, responses=problems(NotFound))
async def replay_webhook_delivery(
    caller: AdminDep, endpoint_id: EndpointIdDep, delivery_id: DeliveryIdDep, uow: UnitOfWorkDep
) -> DeliveryRead:
    """Tell it again, now; the message keeps its `webhook-id`."""
    return delivery_read(await service.replay_delivery(uow.session, caller, endpoint_id, delivery_id))
