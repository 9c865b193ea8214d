"""A job's events as Server-Sent Events. They are rows, numbered: any process can go on where another stopped."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from uuid import UUID

import structlog
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.parts import Parts
from core.lifecycle import FINAL, JobStatus, Phase
from core.tables import JobEvent

PING_SECONDS = 15.0
PING = b": ping\n\n"
log = structlog.get_logger()


class EventRead(BaseModel):
    """One change of status or phase."""

    number: int
    at: datetime
    status: JobStatus
    phase: Phase | None
    attempt: int


async def event_stream(parts: Parts, job_id: UUID, *, after: int) -> AsyncIterator[bytes]:
    """Every event after that number, then each as it happens; ends after the last. No connection is held meanwhile."""
    with parts.watcher.watch(job_id) as bell:
        while True:
            try:
                events = await _events(parts, job_id, after)
            except SQLAlchemyError as error:
                # The client comes back with Last-Event-ID and misses nothing.
                log.warning("stream.broken", job_id=str(job_id), error=str(error))
                return
            for event in events:
                yield _written(event)
                after = event.number
            if any(event.status in FINAL for event in events):
                return
            if not await bell.wait(PING_SECONDS):
                yield PING


async def _events(parts: Parts, job_id: UUID, after: int) -> Sequence[JobEvent]:
    told = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.number > after).order_by(JobEvent.number)
    async with parts.sessions() as session:
        return (await session.scalars(told)).all()


def _written(event: JobEvent) -> bytes:
    body = EventRead(
        number=event.number, at=event.at, status=event.status, phase=event.phase, attempt=event.attempt
    ).model_dump_json()
    return f"id: {event.number}\nevent: job\ndata: {body}\n\n".encode()
