"""Budgets of steps, spent over as many runs as it takes, and when a run has to stop."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch

from hyperdreambooth.recipes.progress import Clock


class TimeIsUp(Exception):
    """A run ends before its work is done; says how far it is."""


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """When a run has to stop, in minutes of wall clock from now. None: when it is done."""

    minutes: float | None = None
    clock: Clock = field(default_factory=Clock)

    def passed(self) -> bool:
        return self.minutes is not None and self.clock.seconds() >= 60 * self.minutes

    def check(self, how_far: str) -> None:
        """TimeIsUp if it is."""
        if self.passed():
            raise TimeIsUp(how_far)


@dataclass(kw_only=True)
class Budget:
    """Steps of training. The learning rate warms up, stays flat, then falls along a cosine to zero."""

    total: int
    flat_share: float
    warmup_steps: int
    deadline: Deadline = field(default_factory=Deadline)
    steps: int = 0
    _marked: float = field(default_factory=time.monotonic)

    def resume(self, state: dict[str, float] | None) -> None:
        """Go on from what `state` returned in an earlier run."""
        if state:
            self.steps = int(state["steps"])

    def state(self) -> dict[str, float]:
        return {"steps": self.steps}

    def left(self) -> bool:
        """Whether this run takes another step."""
        return self.steps < self.total and not self.deadline.passed()

    def check_spent(self) -> None:
        """TimeIsUp if the run stopped before the end."""
        if self.steps < self.total:
            raise TimeIsUp(f"{self.steps} of {self.total} steps done")

    def generator(self, seed: int) -> torch.Generator:
        """The numbers of this step: nothing random is carried from step to step, so any run takes the same one."""
        number = np.random.SeedSequence([seed, self.steps]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(number >> 1))

    def factor(self) -> float:
        """What the learning rate is multiplied with now."""
        falling = max(0.0, (self.steps / self.total - self.flat_share) / (1 - self.flat_share))
        return min(1.0, (self.steps + 1) / self.warmup_steps) * 0.5 * (1 + math.cos(math.pi * falling))

    def advance(self) -> None:
        """Note a step."""
        self.steps += 1

    def every(self, *, minutes: float) -> bool:
        """True once in so many minutes: time for a checkpoint."""
        due = time.monotonic() - self._marked >= 60 * minutes
        if due:
            self._marked = time.monotonic()
        return due


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Each group's own rate, which it was made with, times the factor."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("full_lr", group["lr"]) * factor
