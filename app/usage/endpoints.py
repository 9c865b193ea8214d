"""`/v1/usage`: what the account used."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from app.dependencies import KeyHolderDep, SessionDep
from app.documented import problems
from app.usage import service
from app.usage.schemas import Usage
from core.errors import InvalidRequest

router = APIRouter(prefix="/v1/usage", tags=["usage"])
MAX_DAYS = timedelta(days=366)
USUAL_DAYS = timedelta(days=29)


def written_out(given: object) -> object:
    """Pydantic would take a number for seconds since 1970."""
    if isinstance(given, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", given, re.ASCII):
        raise ValueError("A day is written 2026-11-23.")
    return given


Day = Annotated[date, BeforeValidator(written_out)]


@router.get("", responses=problems())
async def get_usage(
    caller: KeyHolderDep,
    session: SessionDep,
    *,
    since: Annotated[Day | None, Query(description="The first day; 29 days before `until` if absent.")] = None,
    until: Annotated[Day | None, Query(description="The last day; today if absent.")] = None,
) -> Usage:
    """Jobs, seconds, pictures and bytes by day (UTC)."""
    last = until or datetime.now(UTC).date()
    first = since or last - min(USUAL_DAYS, last - date.min)
    if not timedelta(0) <= last - first <= MAX_DAYS:
        raise InvalidRequest(errors=[{"pointer": "?since", "detail": "At most a year, and not after `until`."}])
    span = service.Span(account_id=caller.account_id, since=first, until=last)
    return Usage(days=await service.usage(session, span))
