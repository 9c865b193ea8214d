"""When will it be done: from how long each phase of recent jobs took. Unmeasured means unknown, never a guess."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.lifecycle import GPU_KINDS, PHASES, JobKind, JobStatus, Phase, WorkerRole
from core.statements import live_workers
from core.tables import Job

RECENT_JOBS = 20
FRESH_SECONDS = 5
WORKER_SEEN = timedelta(seconds=60)
# How much of the whole each phase is, until jobs have been measured.
USUAL_SHARE: Mapping[Phase, float] = {
    Phase.VALIDATING: 1,
    Phase.PREDICTING: 1,
    Phase.FINETUNING: 20,
    Phase.GENERATING: 20,
    Phase.STORING: 1,
}
COARSE_SECONDS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 300)
COARSE_STEP = 300


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The median seconds of each phase (None before the first job ended), and how many jobs run side by side."""

    seconds: Mapping[Phase, float] | None
    slots: int

    @property
    def whole_job(self) -> float | None:
        """From start to end."""
        return None if self.seconds is None else sum(self.seconds.values())


def remaining_share(job: Job, weight: Mapping[Phase, float]) -> float:
    """How much of a running job is ahead, by the weights of its phases."""
    phases = PHASES[job.kind]
    whole = sum(weight.get(phase, 0) for phase in phases)
    if job.phase not in phases or whole == 0:
        return 1.0
    here = phases.index(job.phase)
    done_here = min(job.step / job.total_steps, 1.0) if job.total_steps else 0.0
    ahead = weight.get(job.phase, 0) * (1 - done_here) + sum(weight.get(phase, 0) for phase in phases[here + 1 :])
    return ahead / whole


def fraction(job: Job, pace: Pace) -> float:
    """How much of the whole job is done, in hundredths."""
    match job.status:
        case JobStatus.SUCCEEDED:
            return 1.0
        case JobStatus.RUNNING:
            return math.floor((1 - remaining_share(job, pace.seconds or USUAL_SHARE)) * 100) / 100
        case _:
            return 0.0


def queue_seconds(ahead: int, pace: Pace) -> float | None:
    """Until a slot is free for a job with so many ahead of it."""
    return None if pace.whole_job is None else ahead // pace.slots * pace.whole_job


def eta_seconds(job: Job, pace: Pace, *, waiting: float | None = None) -> int | None:
    """Until the job is done, coarse on purpose: an answer that says the same can be a 304."""
    if pace.seconds is None or pace.whole_job is None:
        return None
    if job.status is JobStatus.RUNNING:
        return coarse(remaining_share(job, pace.seconds) * pace.whole_job)
    if job.status is JobStatus.QUEUED and waiting is not None:
        return coarse(waiting + pace.whole_job)
    return None


def coarse(seconds: float) -> int:
    """Rounded up to a value that people would say."""
    rounded = next((step for step in COARSE_SECONDS if seconds <= step), None)
    return rounded or math.ceil(seconds / COARSE_STEP) * COARSE_STEP


class Forecaster:
    """Knows the pace of each queue, and asks the database again every few seconds at most."""

    def __init__(self, *, batch_size: int) -> None:
        self._batch_size = batch_size
        self._known: dict[tuple[JobKind, str], tuple[float, Pace]] = {}

    async def pace(self, session: AsyncSession, kind: JobKind, base_model: str) -> Pace:
        """How fast such jobs go now."""
        asked_at, pace = self._known.get((kind, base_model), (-math.inf, None))
        if pace is None or time.monotonic() - asked_at > FRESH_SECONDS:
            pace = Pace(
                seconds=await _phase_seconds(session, kind, base_model),
                slots=await self._slots(session, kind, base_model),
            )
            self._known[kind, base_model] = (time.monotonic(), pace)
        return pace

    def forget(self) -> None:
        """Ask the database again next time."""
        self._known.clear()

    async def _slots(self, session: AsyncSession, kind: JobKind, base_model: str) -> int:
        if kind not in GPU_KINDS:
            return 1
        workers = (await session.scalars(live_workers(within=WORKER_SEEN))).all()
        serving = [worker for worker in workers if worker.role == WorkerRole.GPU and worker.base_model == base_model]
        return max(len(serving), 1) * self._batch_size


async def _phase_seconds(session: AsyncSession, kind: JobKind, base_model: str) -> Mapping[Phase, float] | None:
    """Medians over the jobs that ended last."""
    recent = (
        select(Job.timings)
        .where(Job.kind == kind, Job.base_model == base_model, Job.status == JobStatus.SUCCEEDED)
        .order_by(Job.expires_at.desc())
        .limit(RECENT_JOBS)
    )
    timings = (await session.scalars(recent)).all()
    if not timings:
        return None
    return {phase: median(float(timing.get(phase, 0)) for timing in timings) for phase in PHASES[kind]}
