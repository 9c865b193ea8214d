"""The job rows as a worker sees them: claim, renew, note progress, and end an attempt in one fenced transaction."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from core.database import Sessions
from core.lifecycle import JobKind, JobStatus, Phase
from core.settings import Settings
from core.statements import claim_jobs, finish_job, record_progress, release_job, renew_lease
from core.tables import Job
from worker.backoff import retried, waits

Record = Callable[[Session], None]
Wait = Callable[[float], object]
Error = Mapping[str, Any]

log = structlog.get_logger()


class Stop(Exception):
    """Why an attempt must not go on."""


class Canceled(Stop):
    """Its caller no longer wants it."""


class LeaseLost(Stop):
    """Somebody else may have it by now: this attempt writes no more."""


class RanTooLong(Stop):
    """It used up the time that a job may run."""


class HandedBack(Stop):
    """This process is about to end."""


@dataclass(frozen=True)
class Progress:
    """Where an attempt stands."""

    phase: Phase
    step: int
    total_steps: int


@dataclass(eq=False)
class Attempt:
    """One try at one job by this process."""

    job: Job
    started: float = field(default_factory=time.monotonic)
    stop: Stop | None = None
    unwritten: list[Progress] = field(default_factory=list)

    def note(self, progress: Progress) -> bool:
        """Remember progress until it is written: every phase, but only the last step of each. True for a new phase."""
        is_new = not self.unwritten or self.unwritten[-1].phase != progress.phase
        if is_new:
            self.unwritten.append(progress)
        else:
            self.unwritten[-1] = progress
        return is_new


class Ledger:
    """What this process says to the jobs' table. Its name is in every row that it holds."""

    def __init__(self, sessions: Sessions, settings: Settings, *, name: str) -> None:
        self.name = name
        self.lease = settings.lease
        self._sessions = sessions
        self._keep = timedelta(days=settings.job_days)

    def claim(self, kind: JobKind, base_model: str, *, limit: int) -> list[Attempt]:
        """Take up to `limit` queued jobs, oldest first."""
        statement = claim_jobs(kind, base_model, limit=limit, lease=self.lease, worker=self.name)
        with self._sessions.begin() as session:
            jobs = session.scalars(statement).all()
        return [Attempt(job) for job in sorted(jobs, key=lambda job: (job.queued_at, job.id))]

    def renew(self, attempts: Iterable[Attempt]) -> None:
        """Keep the jobs for another lease."""
        with self._sessions.begin() as session:
            for attempt in attempts:
                cancel_requested = session.scalar(renew_lease(attempt.job.id, attempt.job.attempt, lease=self.lease))
                if cancel_requested is None:
                    attempt.stop = attempt.stop or LeaseLost()
                elif cancel_requested:
                    attempt.stop = attempt.stop or Canceled()

    def record_progress(self, attempt: Attempt, notes: Iterable[Progress]) -> None:
        """Write where the attempt stands. Whether the job is still ours, the next renewal tells."""
        with self._sessions.begin() as session:
            for note in notes:
                statement = record_progress(
                    attempt.job.id,
                    attempt.job.attempt,
                    phase=note.phase,
                    step=note.step,
                    total_steps=note.total_steps,
                )
                if session.scalar(statement):
                    attempt.stop = attempt.stop or Canceled()

    def finish(
        self,
        attempt: Attempt,
        status: JobStatus,
        *,
        error: Error | None = None,
        record: Record | None = None,
        wait: Wait = time.sleep,
    ) -> None:
        """End the job and record what it made, in one transaction. The database may be away for as long as a lease."""
        statement = finish_job(attempt.job.id, attempt.job.attempt, status, error=error, keep=self._keep)
        self._end(attempt, lambda session: session.scalar(statement), record, wait)

    def release(self, attempt: Attempt, *, error: Error | None = None, wait: Wait = time.sleep) -> None:
        """Hand the job back to the queue, without a strike; or end it, where its caller no longer wants it."""
        statement = release_job(attempt.job.id, attempt.job.attempt, error=error, keep=self._keep)
        self._end(attempt, lambda session: session.scalar(statement), None, wait)

    def _end(self, attempt: Attempt, move: Callable[[Session], Job | None], record: Record | None, wait: Wait) -> None:
        renewal = renew_lease(attempt.job.id, attempt.job.attempt, lease=self.lease)

        def transact() -> None:
            with self._sessions.begin() as session:
                # The lease may have ended while the database was away: unless the sweeper has judged, the job is ours.
                session.execute(renewal)
                if move(session) is None:
                    raise LeaseLost
                if record is not None:
                    record(session)

        pauses = waits(first_seconds=0.25, total_seconds=self.lease.total_seconds())
        retried(transact, on=OperationalError, pauses=pauses, pause=wait)
