"""A thread rings the bells, after the commit: a slow broker delays no answer, a dead one loses no job."""

from queue import Full, Queue
from threading import Thread

import structlog

from core.lifecycle import JobKind
from core.queue import ring

MAX_WAITING = 1000
STOP_SECONDS = 3
Bell = tuple[JobKind, str]
log = structlog.get_logger()


class Publisher:
    """Rings in the order it was told. What doesn't fit is dropped: the sweeper rings again."""

    def __init__(self) -> None:
        self._waiting: Queue[Bell | None] = Queue(MAX_WAITING)
        self._thread = Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Begin to ring."""
        self._thread.start()

    def publish(self, kind: JobKind, base_model: str) -> None:
        """Ring soon; never blocks."""
        try:
            self._waiting.put_nowait((kind, base_model))
        except Full:
            log.warning("bell.dropped", kind=kind, base_model=base_model)

    def stop(self) -> None:
        """Ring what is waiting, but don't wait long for a broker that doesn't answer."""
        try:
            self._waiting.put_nowait(None)
        except Full:
            return
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while (bell := self._waiting.get()) is not None:
            try:
                ring(*bell)
            except Exception:  # whatever a client library raises, the next bell still rings
                log.exception("bell.failed")
