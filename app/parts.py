"""What the application holds for as long as it runs: made once by `create_app`, asked for by `app/dependencies.py`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from anyio import CapacityLimiter, to_thread
from sqlalchemy.ext.asyncio import AsyncEngine

from app.jobs.forecaster import Forecaster
from app.jobs.watch import JobWatcher
from app.limits import RequestLimiter
from app.open_files import raise_open_files_limit
from app.publisher import Publisher
from app.request_metrics import RequestMetrics
from core.database import AsyncSessions, make_async_engine, make_async_sessions, make_read_engine
from core.photo_reader import PROCESSES, PhotoReader
from core.queue import configure_queue
from core.settings import Settings
from core.storage import ObjectStore


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Nothing here connects before it is used."""

    settings: Settings
    engine: AsyncEngine
    sessions: AsyncSessions
    # For what only reads: see `core.database.make_read_engine`.
    reads: AsyncEngine
    read_sessions: AsyncSessions
    store: ObjectStore
    photos: PhotoReader
    publisher: Publisher
    watcher: JobWatcher
    forecaster: Forecaster
    limiter: RequestLimiter
    metrics: RequestMetrics
    # Photos wait here rather than in the threads that everything else needs too.
    decoding: CapacityLimiter


def make_parts(settings: Settings) -> Parts:
    """Build the parts from the settings."""
    engine, reads = make_async_engine(settings), make_read_engine(settings)
    configure_queue(settings)
    read_sessions = make_async_sessions(reads)
    return Parts(
        settings=settings,
        engine=engine,
        sessions=make_async_sessions(engine),
        reads=reads,
        read_sessions=read_sessions,
        store=ObjectStore(settings),
        photos=PhotoReader(settings),
        publisher=Publisher(),
        watcher=JobWatcher(settings.database_url.get_secret_value(), reads),
        forecaster=Forecaster(read_sessions),
        metrics=RequestMetrics(),
        limiter=RequestLimiter(per_minute=settings.requests_per_minute),
        decoding=CapacityLimiter(PROCESSES),
    )


@asynccontextmanager
async def running(parts: Parts) -> AsyncIterator[None]:
    """Start what runs in the background; stop it in reverse."""
    raise_open_files_limit()
    parts.publisher.start()
    async with parts.watcher.listening():
        yield
    await to_thread.run_sync(parts.publisher.stop)
    await to_thread.run_sync(parts.photos.close)
    await parts.engine.dispose()
    await parts.reads.dispose()
