"""Learning rates by the clock: a budget of minutes, spent over as many runs as it takes."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch


@dataclass(kw_only=True)
class Budget:
    """Minutes of training. The learning rate warms up, stays flat, then falls along a cosine to zero."""

    minutes: float
    flat_share: float
    warmup_steps: int
    steps: int = 0
    spent_before: float = 0.0  # seconds, in earlier runs
    began: float = field(default_factory=time.monotonic)
    _marked: float = 0.0
    _counted: int = 0

    def resume(self, state: dict[str, float] | None) -> None:
        """Go on from what `state` returned in an earlier run."""
        if state:
            self.steps, self.spent_before = int(state["steps"]), state["seconds"]
            self._counted = int(self.spent_before)

    def state(self) -> dict[str, float]:
        return {"steps": self.steps, "seconds": self.seconds()}

    def seconds(self) -> float:
        return self.spent_before + time.monotonic() - self.began

    def share(self) -> float:
        """0 at the start, 1 at the end."""
        return min(1.0, self.seconds() / (60 * self.minutes))

    def left(self) -> bool:
        return self.share() < 1

    def factor(self) -> float:
        """What the learning rate is multiplied with now."""
        falling = max(0.0, (self.share() - self.flat_share) / (1 - self.flat_share))
        return min(1.0, (self.steps + 1) / self.warmup_steps) * 0.5 * (1 + math.cos(math.pi * falling))

    def advance(self) -> int:
        """Note a step; returns whole seconds that have passed since the last one."""
        self.steps += 1
        passed = int(self.seconds()) - self._counted
        self._counted += passed
        return passed

    def every(self, *, minutes: float) -> bool:
        """True once in so many minutes: time for a checkpoint."""
        due = self.seconds() - max(self._marked, self.spent_before) >= 60 * minutes
        if due:
            self._marked = self.seconds()
        return due


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Each group's own rate, which it was made with, times the factor."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("full_lr", group["lr"]) * factor
