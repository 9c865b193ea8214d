"""Asks the database how fast jobs go and how a queue stands, once for all who poll."""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import median
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.forecast import Forecast, JobRow, Lane, Line, Pace, queue_seconds, remaining_share
from core.database import AsyncSessions
from core.lifecycle import GPU_KINDS, PHASES, JobKind, JobStatus, Phase, WorkerRole
from core.promises import RECENT_JOBS, recently_succeeded
from core.statements import live_workers, queue_order
from core.tables import Job, WorkerProcess

PACE_SECONDS, QUEUE_SECONDS = 5.0, 1.0
# Reading a very long queue may take this share of the process's time at most.
QUEUE_SHARE = 0.05
WORKER_SEEN = timedelta(seconds=60)
Key = tuple[JobKind, str]


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A queue as it stood a moment ago."""

    ahead: Mapping[UUID, int]
    line: Line
    read_at: float
    stale_at: float


class Forecaster:
    """Knows the pace and the line of each queue. What it knows is a second old at most, or that of a long queue."""

    def __init__(self, sessions: AsyncSessions) -> None:
        self._sessions = sessions
        self._paces: dict[Key, tuple[float, Pace]] = {}
        self._queues: dict[Key, Queue] = {}
        self._reading: dict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def forecast(self, job: JobRow) -> Forecast:
        """Most often without asking the database."""
        key = (job.kind, job.base_model)
        pace = self._known_pace(key)
        if pace is None:
            async with self._sessions() as session:
                pace = await self.pace(session, *key)
        if job.status is not JobStatus.QUEUED:
            return Forecast(pace=pace)
        return _forecast(job, pace, await self._queue(key, job.id))

    async def forecast_new(self, session: AsyncSession, job: Job) -> Forecast | None:
        """The same within the transaction that makes the job, before others see it; None if its pace is unknown."""
        key = (job.kind, job.base_model)
        pace = await self.pace(session, *key)
        if pace.seconds is None or job.status is not JobStatus.QUEUED:
            return None
        self._queues[key] = await self._read_queue(session, *key)
        return _forecast(job, pace, self._queues[key])

    async def pace(self, session: AsyncSession, kind: JobKind, base_model: str) -> Pace:
        """How fast such jobs go now."""
        pace = self._known_pace((kind, base_model))
        if pace is None:
            pace = Pace(seconds=await _phase_seconds(session, kind, base_model))
            self._paces[kind, base_model] = (time.monotonic() + PACE_SECONDS, pace)
        return pace

    def forget(self) -> None:
        """Ask the database again next time."""
        self._paces.clear()
        self._queues.clear()

    def _known_pace(self, key: Key) -> Pace | None:
        stale_at, pace = self._paces.get(key, (-math.inf, None))
        return pace if time.monotonic() < stale_at else None

    async def _queue(self, key: Key, job_id: UUID) -> Queue:
        """A fresh one that has the job, or one read after the asking: what was made a moment ago is in no older one."""
        asked_at = time.monotonic()
        if (known := self._queues.get(key)) and known.stale_at > asked_at and job_id in known.ahead:
            return known
        async with self._reading[key]:  # one asks for all
            known = self._queues.get(key)
            if known is None or known.read_at < asked_at:
                async with self._sessions() as session:
                    known = self._queues[key] = await self._read_queue(session, *key)
        return known

    async def _read_queue(self, session: AsyncSession, kind: JobKind, base_model: str) -> Queue:
        began = time.monotonic()
        ids = (await session.scalars(queue_order(kind, base_model))).all()
        line = await self._line(session, kind, base_model)
        lasts = max(QUEUE_SECONDS, (time.monotonic() - began) / QUEUE_SHARE)
        ahead = {job_id: place for place, job_id in enumerate(ids)}
        return Queue(ahead=ahead, line=line, read_at=began, stale_at=time.monotonic() + lasts)

    async def _line(self, session: AsyncSession, kind: JobKind, base_model: str) -> Line:
        """Who serves the queue, and what they have before them. Where nobody does, a worker with batches of one."""
        if kind not in GPU_KINDS:
            return Line()
        live = (await session.scalars(live_workers(within=WORKER_SEEN))).all()
        workers = [one for one in live if one.role == WorkerRole.GPU and one.base_model == base_model]
        (other,) = GPU_KINDS - {kind}
        waiting = select(func.count()).where(
            Job.kind == other, Job.base_model == base_model, Job.status == JobStatus.QUEUED
        )
        other_jobs = await session.scalar(waiting) or 0
        other_pace = await self.pace(session, other, base_model)
        lanes = await self._lanes(session, base_model, workers, other)
        return Line(lanes=lanes or [Lane()], other_jobs=other_jobs, other_seconds=other_pace.whole_job or 0.0)

    async def _lanes(
        self, session: AsyncSession, base_model: str, workers: Sequence[WorkerProcess], other: JobKind
    ) -> list[Lane]:
        """Each worker is busy for as long as the slowest job of its batch."""
        lanes = {worker.name: Lane(batch_size=worker.batch_size) for worker in workers}
        running = select(Job).where(Job.status == JobStatus.RUNNING, Job.worker.in_(list(lanes)))
        for job in await session.scalars(running):
            assert job.worker is not None
            lane, pace = lanes[job.worker], await self.pace(session, job.kind, base_model)
            left = remaining_share(job, pace.seconds) * (pace.whole_job or 0.0) if pace.seconds else 0.0
            free_in, other_is_next = max((lane.free_in, lane.other_is_next), (left, job.kind is not other))
            lanes[job.worker] = replace(lane, free_in=free_in, other_is_next=other_is_next)
        return list(lanes.values())


def _forecast(job: JobRow, pace: Pace, queue: Queue) -> Forecast:
    ahead = queue.ahead.get(job.id, 0)
    return Forecast(pace=pace, ahead=ahead, waiting=queue_seconds(ahead, pace, queue.line))


async def _phase_seconds(session: AsyncSession, kind: JobKind, base_model: str) -> Mapping[Phase, float] | None:
    """Medians over the jobs that ended last."""
    alike = (Job.kind == kind) & (Job.base_model == base_model)
    recent = recently_succeeded().where(alike).limit(RECENT_JOBS).with_only_columns(Job.timings)
    timings = (await session.scalars(recent)).all()
    if not timings:
        return None
    return {phase: median(float(timing.get(phase, 0)) for timing in timings) for phase in PHASES[kind]}
