"""Wakes whoever waits for a job: Postgres notifies on every event (see the trigger in `migrations/`)."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from uuid import UUID

import psycopg
import structlog
from sqlalchemy import make_url

CHANNEL = "job_events"
RECONNECT_SECONDS = 1.0
# A notification may be lost with its connection: nobody relies on one for longer than this.
LOOK_ANYWAY_SECONDS = 15.0
log = structlog.get_logger()


class Bell:
    """Rung when the job it belongs to has changed."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake the waiter."""
        self._rung.set()

    async def wait(self, seconds: float) -> bool:
        """Until it is rung, or it is time to look anyway (then False). Look at the job before each wait."""
        try:
            await asyncio.wait_for(self._rung.wait(), min(seconds, LOOK_ANYWAY_SECONDS))
        except TimeoutError:
            return False
        self._rung.clear()
        return True


class JobWatcher:
    """One connection for all who wait in this process."""

    def __init__(self, database_url: str) -> None:
        self._conninfo = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._bells: dict[UUID, set[Bell]] = defaultdict(set)

    @contextmanager
    def watch(self, job_id: UUID) -> Iterator[Bell]:
        """A bell that rings for every event of the job from now on."""
        bell = Bell()
        self._bells[job_id].add(bell)
        try:
            yield bell
        finally:
            self._bells[job_id].discard(bell)
            if not self._bells[job_id]:
                del self._bells[job_id]

    def waiters(self) -> int:
        """How many wait in this process."""
        return sum(map(len, self._bells.values()))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen in the background, through every outage of the database."""
        task = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self._ring_all()
                    async for note in connection.notifies():
                        self._ring(UUID(note.payload))
            except psycopg.OperationalError as error:
                log.warning("watcher.disconnected", error=str(error))
            await asyncio.sleep(RECONNECT_SECONDS)

    def _ring(self, job_id: UUID) -> None:
        for bell in self._bells.get(job_id, ()):
            bell.ring()

    def _ring_all(self) -> None:
        """What happened while nobody listened is unknown: let all look."""
        for job_id in list(self._bells):
            self._ring(job_id)
