"""What ties a pool process to its parent: it learns from a file that the end is near, and it ends when the parent has.

Signals reach the parent alone. Celery asks Linux to kill a child with its parent, but only once the child's interpreter
has come so far; who asks again and again needs no luck, nor Linux.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

STOP_POLL_SECONDS = 0.1
LOOK_SECONDS = 0.5


class StopFile:
    """How the parent tells its pool that the end is near."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_set(self) -> bool:
        """Is this process to hand back what it has?"""
        return self._path.exists()

    def wait(self, seconds: float) -> None:
        """Sleep, but not past the end."""
        until = time.monotonic() + seconds
        while not self.is_set() and time.monotonic() < until:
            time.sleep(min(STOP_POLL_SECONDS, seconds))


def leave_with(parent: int, *, told_to_leave: Callable[[], bool], leave: Callable[[], None]) -> None:
    """End this process at once when its parent has gone; after `leave`, when there is nothing to wait for."""

    def watch() -> None:
        while os.getppid() == parent and not told_to_leave():
            time.sleep(LOOK_SECONDS)
        if os.getppid() == parent:
            leave()
        os._exit(0)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def end_in_time(stop: StopFile, seconds: float, *, then: Callable[[], None]) -> None:
    """For the parent: whatever hangs, it has ended so many seconds after it was told to. Its pool ends with it."""

    def watch() -> None:
        while not stop.is_set():
            time.sleep(LOOK_SECONDS)
        time.sleep(seconds)
        then()
        os._exit(os.EX_TEMPFAIL)

    # A thread from the beginning: in a handler of signals, which may interrupt anything, none can safely be started.
    threading.Thread(target=watch, name="deadline", daemon=True).start()
