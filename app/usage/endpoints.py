"""`/v1/usage`: what the account used."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from app.dependencies import KeyHolderDep, SessionDep
from app.documented import problems
from app.usage import service
from app.usage.schemas import Usage
from core.errors import InvalidRequest

router = APIRouter(prefix="/v1/usage", tags=["usage"])
MAX_DAYS = timedelta(days=366)
USUAL_DAYS = timedelta(days=29)


@router.get("", responses=problems())
async def get_usage(
    caller: KeyHolderDep,
    session: SessionDep,
    *,
    since: Annotated[date | None, Query(description="The first day; 29 days before `until` if absent.")] = None,
    until: Annotated[date | None, Query(description="The last day; today if absent.")] = None,
) -> Usage:
    """Jobs, seconds, pictures and bytes by day (UTC)."""
    last = until or datetime.now(UTC).date()
    first = since or last - min(USUAL_DAYS, last - date.min)
    if not timedelta(0) <= last - first <= MAX_DAYS:
        raise InvalidRequest(errors=[{"pointer": "?since", "detail": "At most a year, and not after `until`."}])
    span = service.Span(account_id=caller.account_id, since=first, until=last)
    return Usage(days=await service.usage(session, span))
