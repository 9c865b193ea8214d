"""How much is measured: the figures of a run, and a small one for tests."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Rounds are many and short: whatever else the machine does then falls on both sides alike."""

    rounds: int = 15
    requests: int = 60
    warm_up: int = 20
    creates: int = 15
    saturation_seconds: float = 5.0
    connections: int = 8
    open_loop_seconds: float = 20.0
    load: float = 0.7
    starts: int = 40


SMALL = Plan(
    rounds=3, requests=10, warm_up=5, creates=2, saturation_seconds=0.5, connections=2, open_loop_seconds=1.0, starts=2
)
