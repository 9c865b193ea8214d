"""Make, rotate and remove endpoints; look at what they were told, and tell it again."""

from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import Caller
from app.dependencies import Repeats
from app.idempotency import ACCEPTED, CREATED, earlier_id, fingerprint, replayable
from app.links import delivery_path, webhook_endpoint_path
from app.paging import PageRequest
from app.webhooks.schemas import NewWebhookEndpoint
from core.addresses import is_public
from core.errors import InvalidRequest, NotFound
from core.ids import DELIVERY, WEBHOOK
from core.tables import WebhookDelivery, WebhookEndpoint
from core.webhooks import TEST_EVENT, new_secret

OK = 200


async def create_endpoint(
    session: AsyncSession,
    caller: Caller,
    request: NewWebhookEndpoint,
    repeats: Repeats,
    *,
    allow_private: bool,
) -> tuple[WebhookEndpoint, bool]:
    """A new endpoint with its secret, and whether it is an earlier request's."""
    check_url(request.url, allow_private=allow_private)
    replay = replayable(caller, repeats.key, fingerprint(b"webhook", request.model_dump_json().encode()))
    if earlier := await earlier_id(session, replay, WEBHOOK):
        return await load_endpoint(session, caller, earlier), True
    endpoint = WebhookEndpoint(
        account_id=caller.account_id, url=request.url, events=list(dict.fromkeys(request.events)), secret=new_secret()
    )
    session.add(endpoint)
    await session.flush()
    if replay:
        await replay.remember(session, webhook_endpoint_path(endpoint.id), status=CREATED, keep=repeats.keep)
    await session.refresh(endpoint)
    return endpoint, False


def check_url(url: str, *, allow_private: bool) -> None:
    """Refuse what could never be told; what a name leads to is checked again at each delivery."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _bad_url("This is no address.") from None
    if parts.scheme not in ({"http", "https"} if allow_private else {"https"}):
        raise _bad_url("It must begin with https://")
    if not host or parts.username is not None or parts.fragment:
        raise _bad_url("It needs a host, and may have neither a user nor a fragment.")
    try:
        address = ip_address(host)
    except ValueError:
        return  # a name
    if not allow_private and not is_public(address):
        raise _bad_url("This is not a public address.")


def _bad_url(detail: str) -> InvalidRequest:
    return InvalidRequest(errors=[{"pointer": "#/url", "detail": detail}])


async def load_endpoint(session: AsyncSession, caller: Caller, endpoint_id: UUID) -> WebhookEndpoint:
    """The caller's endpoint."""
    mine = WebhookEndpoint.account_id == caller.account_id
    endpoint = await session.scalar(select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id, mine))
    if endpoint is None:
        raise NotFound
    return endpoint


async def list_endpoints(session: AsyncSession, caller: Caller, page: PageRequest) -> Sequence[WebhookEndpoint]:
    """A page, newest first, and the one after."""
    asked = select(WebhookEndpoint).where(WebhookEndpoint.account_id == caller.account_id)
    if page.before is not None:
        asked = asked.where(WebhookEndpoint.id < page.before)
    return (await session.scalars(asked.order_by(WebhookEndpoint.id.desc()).limit(page.limit + 1))).all()


async def rotate_secret(
    session: AsyncSession, caller: Caller, endpoint_id: UUID, repeats: Repeats, *, overlap: timedelta
) -> tuple[WebhookEndpoint, bool]:
    """A new secret, beside which the old one signs until the overlap ends; and whether an earlier request made it."""
    endpoint = await load_endpoint(session, caller, endpoint_id)
    replay = replayable(caller, repeats.key, fingerprint(b"rotate", endpoint_id.bytes, str(overlap).encode()))
    if await earlier_id(session, replay, WEBHOOK):
        return endpoint, True
    endpoint.previous_secret, endpoint.secret = endpoint.secret, new_secret()
    endpoint.previous_secret_expires_at = await session.scalar(select(func.now() + overlap))
    if replay:
        await replay.remember(session, webhook_endpoint_path(endpoint.id), status=OK, keep=repeats.keep)
    return endpoint, False


async def delete_endpoint(session: AsyncSession, caller: Caller, endpoint_id: UUID) -> None:
    """Gone, with the log of its deliveries."""
    await session.delete(await load_endpoint(session, caller, endpoint_id))


async def list_deliveries(
    session: AsyncSession, caller: Caller, endpoint_id: UUID, page: PageRequest
) -> Sequence[WebhookDelivery]:
    """A page, newest first, and the one after."""
    endpoint = await load_endpoint(session, caller, endpoint_id)
    asked = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint.id)
    if page.before is not None:
        asked = asked.where(WebhookDelivery.id < page.before)
    return (await session.scalars(asked.order_by(WebhookDelivery.id.desc()).limit(page.limit + 1))).all()


async def replay_delivery(
    session: AsyncSession, caller: Caller, endpoint_id: UUID, delivery_id: UUID
) -> WebhookDelivery:
    """Due again now, with the whole schedule before it. The message keeps its id: receivers tell it from a new one."""
    endpoint = await load_endpoint(session, caller, endpoint_id)
    delivery = await session.get(WebhookDelivery, delivery_id)
    if delivery is None or delivery.endpoint_id != endpoint.id:
        raise NotFound
    delivery.tries, delivery.delivered_at = 0, None
    delivery.next_attempt_at = await session.scalar(select(func.now()))
    return delivery


async def send_test(
    session: AsyncSession, caller: Caller, endpoint_id: UUID, repeats: Repeats
) -> tuple[WebhookDelivery, bool]:
    """A ping, delivered like any other message; and whether an earlier request sent it."""
    endpoint = await load_endpoint(session, caller, endpoint_id)
    replay = replayable(caller, repeats.key, fingerprint(b"test", endpoint_id.bytes))
    earlier = await earlier_id(session, replay, DELIVERY)
    if earlier and (known := await session.get(WebhookDelivery, earlier)):
        return known, True
    delivery = WebhookDelivery(endpoint_id=endpoint.id, event=TEST_EVENT, next_attempt_at=func.now())
    session.add(delivery)
    await session.flush()
    if replay:
        await replay.remember(session, delivery_path(endpoint.id, delivery.id), status=ACCEPTED, keep=repeats.keep)
    await session.refresh(delivery)
    return delivery, False
