"""Wait for something, with a deadline, instead of sleeping and hoping."""

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")
POLL_SECONDS = 0.05


def eventually(look: Callable[[], Seen | None], *, within: float = 30) -> Seen:
    """The first true thing that `look` returns."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if seen := look():
            return seen
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"not within {within} seconds: {look}")
