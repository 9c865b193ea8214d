"""Try again, later and later."""

from collections.abc import Callable, Iterator
from typing import TypeVar

Result = TypeVar("Result")


def waits(*, first_seconds: float, total_seconds: float) -> Iterator[float]:
    """Pauses that double, until their sum would pass the total."""
    spent, pause = 0.0, first_seconds
    while spent + pause <= total_seconds:
        yield pause
        spent, pause = spent + pause, 2 * pause


def retried(
    call: Callable[[], Result],
    *,
    on: type[Exception] | tuple[type[Exception], ...],
    pauses: Iterator[float],
    pause: Callable[[float], object],
) -> Result:
    """Call until it works; when the pauses are used up its error is ours."""
    while True:
        try:
            return call()
        except on:
            seconds = next(pauses, None)
            if seconds is None:
                raise
        pause(seconds)
