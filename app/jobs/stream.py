"""A job's events as Server-Sent Events. They are rows, numbered: any process can go on where another stopped."""

from collections.abc import AsyncIterator
from uuid import UUID

from app.jobs.watch import JobWatcher

PING_SECONDS = 15.0
PING = b": ping\n\n"


async def event_stream(watcher: JobWatcher, job_id: UUID, *, after: int) -> AsyncIterator[bytes]:
    """Every event after that number, then each as it happens; ends after the last. No connection is held meanwhile."""
    with watcher.watch(job_id) as feed:
        while True:
            known = feed.number
            for event in [event for event in feed.events if event.number > after]:
                yield event.written
                after = event.number
            if feed.number > known:
                continue  # a slow reader took these while more came
            if feed.has_ended:
                return
            if not await feed.beyond(known, PING_SECONDS):
                yield PING
