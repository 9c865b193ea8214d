"""One batch of jobs from claim to end: fetch, run, store, record. START HERE for the worker.

Then read `worker/ledger.py` (the rows), `worker/heartbeat.py` (leases and progress beside a running batch) and
`worker/personalize.py` (one kind of work).

Neighbours in a batch are independent: whatever happens to one attempt, the others go on.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

import structlog
from sqlalchemy.exc import OperationalError

from core.lifecycle import NEVER_GIVEN_UP, JobKind, JobStatus, Phase
from core.settings import Settings
from core.storage import StorageUnavailable
from core.tables import Job
from worker.backoff import retried, waits
from worker.failures import Failure, OutOfGpuMemory, SubjectErased, classify
from worker.heartbeat import BatchStopped, Heartbeat, end_this_process
from worker.ledger import Attempt, Canceled, HandedBack, LeaseLost, Ledger, Record

# What the bucket or the database refuses is tried again for this long inside an attempt.
PATIENCE_SECONDS = 30

Input = TypeVar("Input")
Output = TypeVar("Output")
Result = TypeVar("Result")
# Called with phase, step and total between steps: which of the batch are to go on? Raises when none is.
OnStep = Callable[[Phase, int, int], Sequence[bool]]

log = structlog.get_logger()


class Work(Protocol[Input, Output]):
    """One kind of job."""

    @property
    def kind(self) -> JobKind:
        """Which jobs it takes."""

    def fetch(self, job: Job) -> Input:
        """What the job works on."""

    def run(self, inputs: Sequence[Input], on_step: OnStep) -> Sequence[Output | Exception]:
        """Work on a batch: a result or an error for each, in order."""

    def store(self, job: Job, output: Output) -> Record:
        """Put the result into the bucket; returns what the finishing transaction writes beside the job."""

    def clean_up(self, job: Job) -> None:
        """The job has ended, well or not: delete what only it needed."""


@dataclass(frozen=True)
class Limits:
    """What a batch may use, and who may end it."""

    settings: Settings
    is_stopping: Callable[[], bool]
    wait: Callable[[float], object]
    on_stall: Callable[[], None] = end_this_process


class Batches(Generic[Input, Output]):
    """Takes batch after batch of one kind of job."""

    def __init__(self, work: Work[Input, Output], ledger: Ledger, limits: Limits, *, size: int) -> None:
        self._work, self._ledger, self._limits = work, ledger, limits
        self.size = size  # halves when memory does not suffice
        self.released = 0  # of the last batch, back to the queue

    def run_one(self, base_model: str) -> int:
        """Claim a batch and bring each of its jobs to an end, or back to the queue. Returns how many there were."""
        self.released = 0
        attempts = self._ledger.claim(self._work.kind, base_model, limit=self.size)
        if not attempts:
            return 0
        log.info("batch.claimed", kind=self._work.kind, jobs=[str(attempt.job.id) for attempt in attempts])
        with Heartbeat(
            self._ledger,
            attempts,
            settings=self._limits.settings,
            is_stopping=self._limits.is_stopping,
            on_stall=self._limits.on_stall,
        ) as heartbeat:
            ready: list[tuple[Attempt, Input]] = []
            for attempt in attempts:
                try:
                    ready.append((attempt, self._patiently(partial(self._work.fetch, attempt.job), heartbeat)))
                except Exception as error:
                    self._settle(attempt, error, heartbeat)
            for attempt, result in self._results(ready, heartbeat):
                self._settle(attempt, result, heartbeat)
        return len(attempts)

    def _results(
        self, ready: Sequence[tuple[Attempt, Input]], heartbeat: Heartbeat
    ) -> Iterator[tuple[Attempt, Output | Exception]]:
        """Run as one batch. What fails as a whole is run in halves, until the one to blame is alone."""
        if not ready:
            return
        attempts = [attempt for attempt, _ in ready]
        try:
            results = self._work.run([given for _, given in ready], partial(heartbeat.step, attempts))
        except BatchStopped as stopped:
            results = [stopped] * len(ready)
        except Exception as error:
            if len(ready) > 1:
                half = len(ready) // 2
                log.warning("batch.halved", jobs=len(ready), error=repr(error))
                if isinstance(error, OutOfGpuMemory):
                    self.size = half
                yield from self._results(ready[:half], heartbeat)
                yield from self._results(ready[half:], heartbeat)
                return
            results = [error]
        yield from zip(attempts, results, strict=True)

    def _settle(self, attempt: Attempt, result: Output | Exception, heartbeat: Heartbeat) -> None:
        """End one attempt. Whatever goes wrong here is its own affair."""
        with structlog.contextvars.bound_contextvars(job_id=str(attempt.job.id), attempt=attempt.job.attempt):
            try:
                if attempt.stop is not None:
                    raise attempt.stop
                if isinstance(result, Exception):
                    raise result
                self._succeed(attempt, result, heartbeat)
            except Exception as error:
                heartbeat.leave(attempt)
                try:
                    self._fail(attempt, error)
                except (LeaseLost, OperationalError) as lost:
                    log.warning("attempt.unrecorded", error=repr(lost))

    def _succeed(self, attempt: Attempt, output: Output, heartbeat: Heartbeat) -> None:
        heartbeat.note([attempt], Phase.STORING, 0, 1)
        record = self._patiently(partial(self._work.store, attempt.job, output), heartbeat)
        heartbeat.leave(attempt)
        self._finish(attempt, JobStatus.SUCCEEDED, record=record)

    def _fail(self, attempt: Attempt, error: Exception) -> None:
        """Cancelled, handed back, tried again, or failed for good."""
        match error:
            case LeaseLost() | OperationalError():
                raise error
            case HandedBack():
                self._release(attempt)
            case Canceled() | SubjectErased():
                self._finish(attempt, JobStatus.CANCELED)
            case _:
                failure = classify(error)
                log.warning("attempt.failed", code=failure.code, exc_info=error if failure.is_ours else None)
                attempts_left = attempt.job.attempt < self._limits.settings.max_attempts
                may_pass = failure.retry and (attempts_left or failure.outlasts_attempts)
                if may_pass or self._work.kind in NEVER_GIVEN_UP:
                    self._release(attempt, failure)
                else:
                    self._finish(attempt, failure.status, failure)

    def _finish(
        self, attempt: Attempt, status: JobStatus, failure: Failure | None = None, record: Record | None = None
    ) -> None:
        error = failure.to_json() if failure else None
        self._ledger.finish(attempt, status, error=error, record=record, wait=self._limits.wait)
        log.info("attempt.finished", status=status, seconds=round(time.monotonic() - attempt.started, 3))
        try:
            self._work.clean_up(attempt.job)
        except (StorageUnavailable, OperationalError) as later:
            log.warning("clean_up.left_to_the_sweeper", error=repr(later))

    def _release(self, attempt: Attempt, failure: Failure | None = None) -> None:
        self.released += 1
        self._ledger.release(attempt, error=failure.to_json() if failure else None, wait=self._limits.wait)
        log.info("attempt.released", code=failure and failure.code)

    def _patiently(self, call: Callable[[], Result], heartbeat: Heartbeat) -> Result:
        """Call; while the bucket or the database is away, again. Waiting is no standstill."""

        def pause(seconds: float) -> None:
            heartbeat.advance()
            self._limits.wait(seconds)

        pauses = waits(first_seconds=0.25, total_seconds=PATIENCE_SECONDS)
        return retried(call, on=(StorageUnavailable, OperationalError), pauses=pauses, pause=pause)
