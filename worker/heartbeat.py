"""A thread beside a batch: renews leases while steps advance, and writes progress, so that no step waits for a row."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from core.lifecycle import Phase
from core.settings import Settings
from worker.ledger import Attempt, HandedBack, LeaseLost, Ledger, Progress, RanTooLong

# Progress is written at most this often for a job; a new phase at once.
PROGRESS_SECONDS = 0.5
RENEWALS_IN_A_LEASE = 4

log = structlog.get_logger()


class BatchStopped(Exception):
    """No attempt of the batch is to go on. Raised inside the algorithm, between two steps."""


def end_this_process() -> None:
    """A step that never ends can't be stopped otherwise. The pool starts a new process."""
    os.kill(os.getpid(), signal.SIGKILL)


class Heartbeat:
    """Speaks for a batch of attempts, from their claim to their end."""

    def __init__(
        self,
        ledger: Ledger,
        attempts: Sequence[Attempt],
        *,
        settings: Settings,
        is_stopping: Callable[[], bool],
        on_stall: Callable[[], None] = end_this_process,
    ) -> None:
        self._ledger, self._attempts = ledger, list(attempts)
        self._max_running_seconds, self._max_step_seconds = settings.max_running_seconds, settings.max_step_seconds
        self._is_stopping, self._on_stall = is_stopping, on_stall
        self._renew_seconds = ledger.lease.total_seconds() / RENEWALS_IN_A_LEASE
        self._renewed = self._advanced = time.monotonic()
        self._notes, self._writing = threading.Lock(), threading.Lock()
        self._wake, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._wake.set()
        self._thread.join()

    def advance(self) -> None:
        """Something moved: not a step, but no standstill either."""
        self._advanced = time.monotonic()

    def note(self, attempts: Sequence[Attempt], phase: Phase, step: int, total_steps: int) -> None:
        """Remember where these attempts stand; the thread writes it."""
        self.advance()
        with self._notes:
            news = [attempt.note(Progress(phase, step, total_steps)) for attempt in attempts if not attempt.stop]
        if any(news):
            self._wake.set()

    def step(self, attempts: Sequence[Attempt], phase: Phase, step: int, total_steps: int) -> list[bool]:
        """Between two steps: note where these attempts stand; which of them are to go on?"""
        self.note(attempts, phase, step, total_steps)
        if self._is_stopping():
            for attempt in attempts:
                attempt.stop = attempt.stop or HandedBack()
        if all(attempt.stop for attempt in attempts):
            raise BatchStopped
        return [attempt.stop is None for attempt in attempts]

    def leave(self, attempt: Attempt) -> None:
        """Write an attempt's last progress: its end comes next, and then nothing more is to be said about it."""
        with self._writing:
            self._attempts = [other for other in self._attempts if other is not attempt]
            try:
                self._write_notes([attempt])
            except SQLAlchemyError as error:
                log.warning("progress.unwritten", error=str(error))

    def _beat(self) -> None:
        while not self._over.is_set():
            self._wake.wait(PROGRESS_SECONDS)
            self._wake.clear()
            try:
                with self._writing:
                    self._renew()
                    self._write_notes(self._attempts)
            except SQLAlchemyError as error:
                log.warning("heartbeat.missed", error=str(error))

    def _renew(self) -> None:
        now = time.monotonic()
        for attempt in self._attempts:
            if now - attempt.started > self._max_running_seconds:
                attempt.stop = attempt.stop or RanTooLong()
        standstill = now - self._advanced
        if standstill > self._max_step_seconds + self._ledger.lease.total_seconds():
            log.error("worker.stalled", seconds=round(standstill))
            self._on_stall()
        elif standstill <= self._max_step_seconds and now - self._renewed >= self._renew_seconds:
            self._ledger.renew(attempt for attempt in self._attempts if not isinstance(attempt.stop, LeaseLost))
            self._renewed = now

    def _write_notes(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            with self._notes:
                notes, attempt.unwritten = attempt.unwritten, []
            if not notes:
                continue
            try:
                self._ledger.record_progress(attempt, notes)
            except SQLAlchemyError:
                with self._notes:
                    attempt.unwritten = notes + attempt.unwritten
                raise
