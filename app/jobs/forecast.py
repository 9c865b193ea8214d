"""When will it be done: from how long each phase of recent jobs took. Unmeasured means unknown, never a guess.

Pure arithmetic; `app/jobs/forecaster.py` asks the database.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from sqlalchemy import Row

from core.lifecycle import PHASES, JobStatus, Phase
from core.tables import Job

# A job as a table class, or the columns of it that a statement selected.
JobRow = Job | Row[Any]
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
    """The median seconds of each phase, of whole batches as they ran; None before the first job ended."""

    seconds: Mapping[Phase, float] | None

    @property
    def whole_job(self) -> float | None:
        """From start to end."""
        return None if self.seconds is None else sum(self.seconds.values())


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A worker: how much it takes at once, when it is free, and whether a batch of the other kind is then due."""

    batch_size: int = 1
    free_in: float = 0.0
    other_is_next: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """What serves a queue. Jobs of one batch run side by side; batches of two kinds take turns on a worker."""

    lanes: Sequence[Lane] = (Lane(),)
    other_jobs: int = 0
    other_seconds: float = 0.0

    @property
    def jobs_at_once(self) -> int:
        """In a batch of each worker."""
        return sum(lane.batch_size for lane in self.lanes)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is known of a job's future: of a queued one how many are served before it, and for how long."""

    pace: Pace
    ahead: int | None = None
    waiting: float | None = None


def remaining_share(job: JobRow, weight: Mapping[Phase, float]) -> float:
    """How much of a running job is ahead, by the weights of its phases."""
    phases = PHASES[job.kind]
    whole = sum(weight.get(phase, 0) for phase in phases)
    if job.phase not in phases or whole == 0:
        return 1.0
    here = phases.index(job.phase)
    done_here = min(job.step / job.total_steps, 1.0) if job.total_steps else 0.0
    ahead = weight.get(job.phase, 0) * (1 - done_here) + sum(weight.get(phase, 0) for phase in phases[here + 1 :])
    return min(1.0, ahead / whole)  # the sums may differ in their last bit, and nobody is less than nothing done


def fraction(job: JobRow, pace: Pace) -> float:
    """How much of the whole job is done, in hundredths."""
    match job.status:
        case JobStatus.SUCCEEDED:
            return 1.0
        case JobStatus.RUNNING:
            return math.floor((1 - remaining_share(job, pace.seconds or USUAL_SHARE)) * 100) / 100
        case _:
            return 0.0


def queue_seconds(ahead: int, pace: Pace, line: Line) -> float | None:
    """Until a batch begins that has room for a job with so many ahead of it."""
    if pace.whole_job is None:
        return None
    rounds, place = divmod(ahead, line.jobs_at_once)
    lanes = sorted(line.lanes, key=lambda lane: lane.free_in)
    filled = accumulate(lane.batch_size for lane in lanes)
    lane = next(lane for lane, full in zip(lanes, filled, strict=True) if place < full)
    others = min(math.ceil(line.other_jobs / line.jobs_at_once), rounds + lane.other_is_next)
    return lane.free_in + rounds * pace.whole_job + others * line.other_seconds


def eta_seconds(job: JobRow, forecast: Forecast) -> int | None:
    """Until the job is done, coarse on purpose: an answer that says the same can be a 304."""
    pace, waiting = forecast.pace, forecast.waiting
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
