"""Count what an account used. Jobs are kept for `HDB_JOB_DAYS`, so older days fade."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Float, Select, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.usage.schemas import UsageDay
from core.lifecycle import JobKind
from core.tables import Adapter, GeneratedImage, Generation, Job, Subject

Moment = InstrumentedAttribute[datetime] | InstrumentedAttribute[datetime | None]


@dataclass(frozen=True, kw_only=True)
class Span:
    """Days of an account, both ends included."""

    account_id: UUID
    since: date
    until: date

    def covers(self, moment: Moment) -> ColumnElement[bool]:
        """The moment lies within."""
        begin, end = datetime.combine(self.since, time.min, UTC), datetime.combine(self.until, time.max, UTC)
        return (moment >= begin) & (moment <= end)


async def usage(session: AsyncSession, span: Span) -> list[UsageDay]:
    """Each day that has anything."""
    days: dict[date, dict[str, Any]] = defaultdict(lambda: {"jobs": {}, "seconds": 0.0, "images": 0, "bytes": 0})
    for day, kind, count in await session.execute(_asked(span)):
        days[day]["jobs"][kind] = count
    for day, seconds in await session.execute(_worked(span)):
        days[day]["seconds"] = round(seconds, 3)
    for day, images, size in await session.execute(_drawn(span)):
        days[day] |= {"images": images, "bytes": size}
    for day, size in await session.execute(_weights(span)):
        days[day]["bytes"] += size
    return [UsageDay(day=day, **days[day]) for day in sorted(days)]


def _day(moment: Moment) -> ColumnElement[date]:
    return func.date(func.timezone("UTC", moment))


def _asked(span: Span) -> Select[date, JobKind, int]:
    day = _day(Job.created_at)
    counted = select(day, Job.kind, func.count()).group_by(day, Job.kind)
    return counted.where(Job.account_id == span.account_id, span.covers(Job.created_at))


def _worked(span: Span) -> Select[date, float]:
    day = _day(Job.finished_at)
    seconds = cast(func.sum(func.extract("epoch", Job.finished_at - Job.started_at)), Float)
    counted = select(day, seconds).group_by(day)
    return counted.where(Job.account_id == span.account_id, span.covers(Job.finished_at), Job.started_at.is_not(None))


def _drawn(span: Span) -> Select[date, int, int]:
    day = _day(Generation.created_at)
    counted = select(day, func.count(), func.sum(GeneratedImage.size)).join(Generation).group_by(day)
    return counted.where(Generation.account_id == span.account_id, span.covers(Generation.created_at))


def _weights(span: Span) -> Select[date, int]:
    day = _day(Adapter.created_at)
    counted = select(day, func.sum(Adapter.size)).join(Subject, Subject.id == Adapter.subject_id).group_by(day)
    return counted.where(Subject.account_id == span.account_id, span.covers(Adapter.created_at))
