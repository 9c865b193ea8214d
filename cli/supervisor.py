"""Starts again what died, sooner the first time than the fifth."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cli.errors import StackError
from cli.process import Part

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 30.0
CALM_SECONDS = 60  # a part that lived so long begins again with the shortest pause


@dataclass
class Record:
    """What is known of one part's deaths."""

    started_at: float
    deaths_in_a_row: int = 0
    restart_at: float | None = None


class Supervisor:
    """Watches parts. Call `mend` often, from the main thread: children die with the thread that started them."""

    def __init__(
        self, parts: Sequence[Part], say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._parts, self._say, self._clock = parts, say, clock
        self._records = {part.name: Record(started_at=clock()) for part in parts}

    def mend(self) -> None:
        """Look at each part once; restart those whose pause is over."""
        for part in self._parts:
            record = self._records[part.name]
            if record.restart_at is not None:
                if self._clock() >= record.restart_at:
                    self._restart(part, record)
            elif part.exit_code is not None:
                self._note_death(part, record)

    def _note_death(self, part: Part, record: Record) -> None:
        calm = self._clock() - record.started_at > CALM_SECONDS
        record.deaths_in_a_row = 1 if calm else record.deaths_in_a_row + 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 4 ** (record.deaths_in_a_row - 1))
        record.restart_at = self._clock() + pause
        self._say(f"{part.name} {describe_exit(part.exit_code)}; starting it again in {pause:.1f} s")

    def _restart(self, part: Part, record: Record) -> None:
        record.restart_at, record.started_at = None, self._clock()
        part.begin()
        try:
            part.wait_ready()
        except StackError as error:
            self._say(f"{part.name} does not come back: {error}")
        else:
            self._say(f"{part.name} is back")


def describe_exit(code: int | None) -> str:
    """An exit code in words."""
    if code is None:
        return "runs"
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
