"""Tells whoever waits for a job what happened to it: one listener and one reader for all who wait in this process.

Postgres notifies on every event (see the trigger in `migrations/`). The events of all jobs that changed meanwhile are
then read by one statement, and shared by all who watch them: what it costs depends on the jobs, not on the watchers.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
import structlog
from psycopg.conninfo import make_conninfo
from pydantic import BaseModel
from sqlalchemy import ARRAY, Integer, Uuid, bindparam, column, func, make_url, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from core.database import CONNECT_SECONDS, NOTICE_SILENCE
from core.lifecycle import FINAL, JobStatus, Phase
from core.tables import JobEvent

CHANNEL = "job_events"
RECONNECT_SECONDS = 1.0
# A notification may be lost with its connection: nobody relies on one for longer than this.
LOOK_ANYWAY_SECONDS = 15.0
JOBS_AT_ONCE = 1000
log = structlog.get_logger()

_known = (
    func.unnest(bindparam("jobs", type_=ARRAY(Uuid)), bindparam("numbers", type_=ARRAY(Integer)))
    .table_valued(column("job_id", Uuid), column("number", Integer), name="known")
    .render_derived()
)
# Takes `jobs` and, for each, the `numbers` of the last events that are known.
NEWS = (
    select(JobEvent.job_id, JobEvent.number, JobEvent.at, JobEvent.status, JobEvent.phase, JobEvent.attempt)
    .join(_known, (_known.c.job_id == JobEvent.job_id) & (JobEvent.number > _known.c.number))
    .order_by(JobEvent.job_id, JobEvent.number)
)


class EventRead(BaseModel):
    """One change of status or phase."""

    number: int
    at: datetime
    status: JobStatus
    phase: Phase | None
    attempt: int


@dataclass(frozen=True, slots=True)
class Event:
    """An event as all its readers get it."""

    number: int
    is_last: bool
    written: bytes


class Feed:
    """What is known of a job's events, for as long as somebody watches it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.watchers = 0
        self._news = asyncio.Event()

    @property
    def number(self) -> int:
        """Of the last event; 0 before the first look."""
        return self.events[-1].number if self.events else 0

    @property
    def has_ended(self) -> bool:
        """Nothing comes any more."""
        return bool(self.events) and self.events[-1].is_last

    def add(self, event: Event) -> None:
        """Wake all who watch."""
        self.events.append(event)
        self._news.set()
        self._news = asyncio.Event()

    async def beyond(self, number: int, seconds: float) -> bool:
        """Wait for an event after that number, for so long at most: is there one?"""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.number <= number:
                    await self._news.wait()
        return self.number > number


class JobWatcher:
    """Two connections at most for all who wait in this process."""

    def __init__(self, database_url: str, reads: AsyncEngine) -> None:
        url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._conninfo = make_conninfo(url, connect_timeout=CONNECT_SECONDS, **NOTICE_SILENCE)
        self._reads = reads
        self._feeds: dict[UUID, Feed] = {}
        self._due: set[UUID] = set()
        self._wake = asyncio.Event()

    @contextmanager
    def watch(self, job_id: UUID) -> Iterator[Feed]:
        """The job's events, all of them, a moment from now; and then each as it happens."""
        feed = self._feeds.setdefault(job_id, Feed())
        feed.watchers += 1
        # Also when others watch it already: an event that was committed before now is never missed.
        self._look_at(job_id)
        try:
            yield feed
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                del self._feeds[job_id]

    def waiters(self) -> int:
        """How many wait in this process."""
        return sum(feed.watchers for feed in self._feeds.values())

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen in the background, through every outage of the database."""
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._read())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _look_at(self, *job_ids: UUID) -> None:
        self._due.update(job_ids)
        self._wake.set()

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    # What happened while nobody listened is unknown.
                    self._look_at(*self._feeds)
                    async for note in connection.notifies():
                        if (job_id := UUID(note.payload)) in self._feeds:
                            self._look_at(job_id)
            except psycopg.OperationalError as error:
                log.warning("watcher.disconnected", error=str(error))
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _read(self) -> None:
        """Read what is due, again and again; while one look is under way, the next ones gather."""
        while True:
            try:
                async with asyncio.timeout(LOOK_ANYWAY_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                self._due.update(self._feeds)
            self._wake.clear()
            while self._due:
                asked = [self._due.pop() for _ in range(min(len(self._due), JOBS_AT_ONCE))]
                try:
                    await self._read_news([job_id for job_id in asked if job_id in self._feeds])
                except (SQLAlchemyError, OSError) as error:
                    log.warning("watcher.unread", error=str(error))
                    self._due.update(asked)
                    await asyncio.sleep(RECONNECT_SECONDS)

    async def _read_news(self, job_ids: list[UUID]) -> None:
        if not job_ids:
            return
        known = {"jobs": job_ids, "numbers": [self._feeds[job_id].number for job_id in job_ids]}
        async with self._reads.connect() as connection:
            rows = (await connection.execute(NEWS, known)).all()
        for row in rows:
            feed = self._feeds.get(row.job_id)  # its last watcher may have left meanwhile
            if feed is not None and row.number > feed.number:
                told = EventRead(
                    number=row.number, at=row.at, status=row.status, phase=row.phase, attempt=row.attempt
                ).model_dump_json()
                written = f"id: {row.number}\nevent: job\ndata: {told}\n\n".encode()
                feed.add(Event(row.number, row.status in FINAL, written))
