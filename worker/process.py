"""What one process of a pool holds: its connections, its networks, its works. Made once, when the process starts."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, Protocol

import structlog

from core.database import make_engine, make_sessions
from core.lifecycle import JobKind, WorkerRole
from core.queue import ring, ring_again
from core.settings import Settings
from core.statements import one_at_a_time
from core.storage import ObjectStore
from worker.attempts import Batches, Limits
from worker.erase import Erasure
from worker.exports import Exporting
from worker.forgetting import Remembering, forget_erased
from worker.generate import Generating, Painter
from worker.ledger import Ledger
from worker.parent import StopFile
from worker.personalize import Personalization, Personalizer
from worker.presence import Presence, Serves, State
from worker.sweeper import Sweeper
from worker.webhooks import deliver_due

log = structlog.get_logger()


class Engine(Personalizer, Painter, Remembering, Protocol):
    """The networks of a process, loaded once."""

    @property
    def serves(self) -> Serves:
        """What callers and operators get to know about them."""


LoadEngine = Callable[[Settings], Engine]


class Process:
    """A GPU process or a housekeeping process."""

    def __init__(self, settings: Settings, role: WorkerRole, *, stop: StopFile, load_engine: LoadEngine) -> None:
        self._settings, self._role, self._load_engine = settings, role, load_engine
        self._connections, self._store = make_engine(settings), ObjectStore(settings)
        self._sessions = make_sessions(self._connections)
        self.presence = Presence(self._sessions, role, beside=self._forget_erased)
        self._stop = stop
        self._ledger = Ledger(self._sessions, settings, name=self.presence.name)
        self._limits = Limits(settings, is_stopping=self._stop.is_set, wait=self._stop.wait)
        self._batches: Mapping[JobKind, Batches[Any, Any]] = {}
        self._engine: Engine | None = None
        self._engine_in_use = threading.Lock()
        self.sweeper = Sweeper(self._sessions, self._store, settings, ring=ring_again)

    def open(self) -> None:
        """Report, then load. A failure is reported, and the next bell tries again. Housekeeping reports by sweeping."""
        if self._role is WorkerRole.GPU:
            self.presence.begin()
        self._load()

    def is_loading_in_vain(self) -> bool:
        """Told to stop before the networks came: nothing was claimed, so there is nothing to wait for."""
        return not self._batches and self._stop.is_set()

    def close(self) -> None:
        """Leave in good order."""
        self.presence.end()
        self._connections.dispose()

    def drain(self, kind: JobKind, base_model: str) -> None:
        """A bell rang: work until nothing is left. Kinds take turns, so that none waits for another's backlog.

        What had to be put back waits for the sweeper's bell, so that a broken part is not hammered. Housekeeping rings
        for what is left, so that sweeps and webhooks get their turn: a backlog must not hold them up.
        """
        if not self._batches and not self._load():
            return
        turns = sorted(self._batches.items(), key=lambda turn: turn[0] is not kind)
        while not self._stop.is_set():
            self._report(State.BUSY)
            with self._engine_in_use:
                claimed = sum(batches.run_one(base_model) for _, batches in turns)
            self._forget_erased()
            if claimed == 0 or any(batches.released for _, batches in turns):
                break
            if self._role is WorkerRole.HOUSEKEEPING and ring(kind, base_model):
                break
        self._report(State.READY)

    def deliver(self) -> None:
        """Send the webhooks that are due, unless another process does: a slow receiver must not keep two busy."""
        with self._sessions.begin() as session:
            if session.scalar(one_at_a_time("webhooks")):
                allow_private = self._settings.webhook_private_addresses
                deliver_due(self._sessions, allow_private=allow_private, is_stopping=self._stop.is_set)

    def _load(self) -> bool:
        self.presence.become(State.LOADING)
        try:
            works = self._works()
        except Exception as error:
            log.error("engine.unloadable", exc_info=error)
            self.presence.become(State.FAILED)
            return False
        size = self._serves.batch_size
        self._batches = {work.kind: Batches(work, self._ledger, self._limits, size=size) for work in works}
        self._report(State.READY)
        return True

    def _works(self) -> Sequence[Any]:
        match self._role:
            case WorkerRole.GPU:
                engine = self._engine = self._load_engine(self._settings)
                return (
                    Personalization(engine, self._sessions, self._store),
                    Generating(engine, self._sessions, self._store),
                )
            case WorkerRole.HOUSEKEEPING:
                exporting = Exporting(self._sessions, self._store, self._settings)
                return (Erasure(self._sessions, self._store, self._settings), exporting)

    @property
    def _serves(self) -> Serves:
        return self._engine.serves if self._engine else Serves()

    def _report(self, state: State) -> None:
        """With the size of batches as it is now: it halves when memory does not suffice."""
        size = min(batches.size for batches in self._batches.values())
        self.presence.become(state, replace(self._serves, batch_size=size))

    def _forget_erased(self) -> None:
        """Not while a batch is drawn from what may have to go: its end comes here again."""
        if self._engine is not None and self._engine_in_use.acquire(blocking=False):
            try:
                forget_erased(self._engine, self._sessions)
            finally:
                self._engine_in_use.release()


def find_loader(name: str) -> LoadEngine:
    """The function behind `module:function`. Imported when it is called: housekeeping never does, and has no torch."""
    module, function = name.split(":")

    def load(settings: Settings) -> Engine:
        loader: LoadEngine = getattr(import_module(module), function)
        return loader(settings)

    return load
