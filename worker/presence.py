"""A thread that says in `worker_processes` that this process lives, what it serves and how it is."""

import os
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import structlog
from sqlalchemy import Executable
from sqlalchemy.exc import SQLAlchemyError

from core.database import Sessions
from core.lifecycle import WorkerRole
from core.statements import report_alive, report_gone

REPORT_SECONDS = 2

log = structlog.get_logger()


class State(StrEnum):
    """What a process says about itself."""

    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    FAILED = "failed"


@dataclass(frozen=True)
class Serves:
    """The networks of a process."""

    base_model: str | None = None
    base_model_hash: str | None = None
    has_hypernetwork: bool = False
    batch_size: int = 1  # jobs that it runs together, at most


class Presence:
    """Reports at once when the state changes, and every few seconds; `beside` is called as often."""

    def __init__(self, sessions: Sessions, role: WorkerRole, *, beside: Callable[[], None] = lambda: None) -> None:
        # Containers may share a host's name, and a number of processes has few values in each.
        self.name = f"{role}@{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
        self._sessions, self._role, self._beside = sessions, role, beside
        self._state, self._serves = State.LOADING, Serves()
        self._changed, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._report_until_over, name="presence", daemon=True)

    def begin(self) -> None:
        """Start to report."""
        self._thread.start()

    def end(self) -> None:
        """Say goodbye, so that nobody counts on this process."""
        self._over.set()
        self._changed.set()
        if self._thread.ident is not None:
            self._thread.join()

    def become(self, state: State, serves: Serves | None = None) -> None:
        """Say so now."""
        self._state, self._serves = state, serves or self._serves
        self._changed.set()

    def _report_until_over(self) -> None:
        while not self._over.is_set():
            self._write(
                report_alive(
                    self.name,
                    self._role,
                    state=self._state,
                    base_model=self._serves.base_model,
                    base_model_hash=self._serves.base_model_hash,
                    has_hypernetwork=self._serves.has_hypernetwork,
                    batch_size=self._serves.batch_size,
                )
            )
            self._do_beside()
            self._changed.wait(REPORT_SECONDS)
            self._changed.clear()
        self._write(report_gone(self.name))

    def _do_beside(self) -> None:
        try:
            self._beside()
        except Exception:
            log.exception("presence.beside_failed")  # the process still works, and has to go on saying so

    def _write(self, statement: Executable) -> None:
        try:
            with self._sessions.begin() as session:
                session.execute(statement)
        except SQLAlchemyError as error:
            log.warning("presence.unreported", error=str(error))
