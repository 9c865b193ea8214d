"""Should somebody who arrives while a batch is finetuned join it at the next step, or wait until it has ended?

`python -m benchmarks.many_subjects.arrivals --out FILE` measures what a step of each size of a batch takes, then lets
the same people arrive at both kinds of worker. The service's own lets them wait; `docs/experiments.md` says why.
"""

import argparse
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.hardware import describe
from benchmarks.many_subjects.models import measured_networks
from benchmarks.many_subjects.settings import Settings
from hyperdreambooth.batch_size import Trial

SIZES = (1, 2, 4, 8, 16)
PATIENCE_SECONDS = 600.0  # more than the steps of all sizes take
LOADS = (0.3, 0.6, 0.9)  # arrivals, as a share of what full batches get through
StepSeconds = Callable[[int], float]  # of a step of so many subjects


@dataclass(frozen=True)
class Row:
    """How long people waited for their weights, from their arrival."""

    load: float
    policy: str
    p50: float
    p95: float
    mean_in_flight: float


def main(settings: Settings, out: Path, *, people: int, seed: int = 0) -> list[Row]:
    """Measure, let people arrive, print the table."""
    networks = measured_networks(settings, dtype=settings.torch_dtype)
    trial, steps = Trial(networks, PATIENCE_SECONDS), networks.config.finetune.steps
    measured = {size: trial(size).seconds for size in settings.subjects}
    rows = compare(interpolated(measured), steps=steps, largest=max(measured), people=people, seed=seed)
    document = {
        "hardware": f"{describe(settings.device)}, {torch.get_num_threads()} threads",
        "model": settings.model,
        "steps": steps,
        "step_seconds": measured,
        "rows": [asdict(row) for row in rows],
    }
    out.write_text(json.dumps(document, indent=2) + "\n")
    print("subjects in a batch: seconds of a step  " + "  ".join(f"{n}: {s:.3f}" for n, s in measured.items()))
    print("| arrivals / capacity | who arrives late | p50 s | p95 s | in flight |\n|---:|---|---:|---:|---:|")
    for row in rows:
        print(f"| {row.load} | {row.policy} | {row.p50:.1f} | {row.p95:.1f} | {row.mean_in_flight:.1f} |")
    return rows


def interpolated(measured: Mapping[int, float]) -> StepSeconds:
    """Between the sizes that were measured, a straight line."""
    sizes, seconds = zip(*sorted(measured.items()), strict=True)
    return lambda size: float(np.interp(size, sizes, seconds))


def compare(step_seconds: StepSeconds, *, steps: int, largest: int, people: int, seed: int) -> list[Row]:
    """Both policies, at every load, for the same arrivals."""
    capacity = largest / (steps * step_seconds(largest))  # people a second, in full batches
    rows = []
    for load in LOADS:
        arrivals = np.random.default_rng(seed).exponential(1 / (load * capacity), people).cumsum()
        for joins in (False, True):
            ended, in_flight = served(arrivals.tolist(), step_seconds, steps=steps, largest=largest, joins=joins)
            p50, p95 = np.percentile(ended - arrivals, [50, 95])
            rows.append(Row(load, "joins" if joins else "waits", float(p50), float(p95), in_flight))
    return rows


def served(
    arrivals: Sequence[float], step_seconds: StepSeconds, *, steps: int, largest: int, joins: bool
) -> tuple[np.ndarray, float]:
    """When each person's last step ended, and how many were in flight in a step on average.

    A worker takes everybody who waits, up to `largest`: when it is idle, or, if late arrivals join, at every step.
    """
    ended, waiting, now, sizes = np.zeros(len(arrivals)), deque(range(len(arrivals))), 0.0, []
    left: dict[int, int] = {}  # steps, of those in flight
    while waiting or left:
        if not left:
            now = max(now, arrivals[waiting[0]])
        while waiting and arrivals[waiting[0]] <= now and len(left) < largest and (joins or _is_fresh(left, steps)):
            left[waiting.popleft()] = steps
        now += step_seconds(len(left))
        sizes.append(len(left))
        left = {person: count - 1 for person, count in left.items()}
        for person in [person for person, count in left.items() if count == 0]:
            ended[person] = now
            del left[person]
    return ended, float(np.mean(sizes))


def _is_fresh(left: Mapping[int, int], steps: int) -> bool:
    """Has nobody of the batch taken a step yet?"""
    return all(count == steps for count in left.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_subjects.arrivals", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=Settings.model)
    parser.add_argument("--device", default=Settings.device)
    parser.add_argument("--people", type=int, default=2000)
    given = parser.parse_args()
    main(Settings(model=given.model, device=given.device, subjects=SIZES), given.out, people=given.people)
