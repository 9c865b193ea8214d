"""One line now and then: how far a recipe is, how fast it goes, and when it will be done."""

import sys
import time
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Clock:
    """Seconds since it was made."""

    began: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        return time.monotonic() - self.began


@dataclass
class Progress:
    """Counts towards a total and prints at most every `every` seconds."""

    name: str
    total: int
    unit: str = "steps"
    every: float = 20.0
    done: int = 0
    clock: Clock = field(default_factory=Clock)
    _printed: float = 0.0

    def __post_init__(self) -> None:
        self._before = self.done  # by earlier runs: it says nothing about this one's speed

    def advance(self, count: int = 1, **figures: float) -> None:
        """Note progress; figures (a loss, a rate) are shown beside it."""
        self.done += count
        seconds = self.clock.seconds()
        if self.done == self._before or (seconds - self._printed < self.every and self.done < self.total):
            return
        self._printed = seconds
        rate = (self.done - self._before) / seconds
        left = (self.total - self.done) / rate
        shown = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
        say(f"{self.name}  {self.done}/{self.total} {self.unit}  {rate:.3g}/s  {left / 60:.1f} min left{shown}")


def say(line: str) -> None:
    """Recipes talk to whoever runs them: one flushed line, with the time of day."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {line}\n")
    sys.stdout.flush()
