"""One method in one process: its networks, its clock, and how its batches compare with single runs."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from benchmarks.many_subjects.clock import Clocked, clocked
from benchmarks.many_subjects.floor import best_rate, task_flops
from benchmarks.many_subjects.models import measured_networks
from benchmarks.many_subjects.orders import Order, orders
from benchmarks.many_subjects.settings import Case, Method, Mix, Settings, Task
from benchmarks.many_subjects.shares import Share, time_shares
from benchmarks.many_subjects.ways import Numbers, Ours, Switch, Way, make_way

Result = TypeVar("Result")


@dataclass(frozen=True)
class Measured:
    """One turn of one method."""

    seconds: float  # for each subject
    cpu_seconds: float
    peak_bytes: int
    difference: float | None  # to single runs: of weights, relative to their norm; of pictures, in steps of 255


@dataclass(frozen=True)
class Switched:
    """How long it takes until the model is somebody else's."""

    resident: int
    p50_ms: float
    p99_ms: float


class Bench:
    """What a child process does."""

    def __init__(self, settings: Settings, method: Method) -> None:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.settings, self.method = settings, method
        self.way = self._made(method, settings)
        self._alone_numbers: dict[int, Numbers] = {}
        self._alone_pictures: dict[Order, Image.Image] = {}

    def _made(self, method: Method, settings: Settings) -> Way:
        networks = measured_networks(settings, dtype=settings.torch_dtype)
        return make_way(method, networks, compiled=settings.acceleration == "compile")

    def tasks(self) -> Sequence[Task]:
        return self.way.tasks

    def steps(self) -> dict[str, int]:
        """The size of the tasks."""
        config = self.way.networks.config
        finetune, sample = config.finetune, config.sample
        return {"steps": finetune.steps, "noise_draws": finetune.noise_draws, "sample_steps": sample.steps}

    def measure(self, case: Case) -> Measured:
        """Time one batch; compare some of it with single runs, which also warm everything up."""
        return self._personalize(case) if case.task is Task.PERSONALIZE else self._generate(case)

    def double_difference(self, task: Task) -> float | None:
        """The same comparison in float64 on a small batch: rounding hides nothing there."""
        count = self.settings.double_subjects
        if count not in self.settings.subjects:
            return None
        way = make_way(self.method, measured_networks(self.settings, dtype=torch.float64))
        if task is Task.PERSONALIZE:
            together = way.finetuned(range(count))
            return max(weight_difference(together[subject], way.finetuned([subject])[0]) for subject in range(count))
        wanted = orders(count, Mix.DISTINCT)
        way.prepare(range(count))
        pictures = way.generate(wanted)
        return max(pixel_difference(pictures[row], way.generate([order])[0]) for row, order in enumerate(wanted))

    def switches(self) -> dict[str, Switched]:
        """Adapters at random out of many that are in memory; for those who copy, out of a few."""
        resident = self.settings.resident
        if isinstance(self.way, Ours):
            self.way.keep_resident(resident)
        else:
            resident = max(self.settings.subjects)
            self.way.prepare(range(resident))
        return {
            ", ".join(filter(None, (self.method, name))): self._switched(switch, resident)
            for name, switch in self.way.switches().items()
        }

    def _switched(self, switch: Switch, resident: int) -> Switched:
        milliseconds = []
        for number in np.random.default_rng(0).integers(0, resident, self.settings.switches):
            began = time.perf_counter()
            with switch(int(number)):
                if self.settings.torch_device.type == "cuda":
                    torch.cuda.synchronize()
            milliseconds.append((time.perf_counter() - began) * 1000)
        return Switched(resident, statistics.median(milliseconds), sorted(milliseconds)[len(milliseconds) * 99 // 100])

    def floor(self) -> dict[Task, float]:
        """Seconds for each subject if nothing but the arithmetic took time."""
        networks = measured_networks(self.settings, dtype=self.settings.torch_dtype)
        rate = best_rate(self.settings.torch_device, self.settings.torch_dtype)
        return {task: task_flops(networks, task) / rate for task in self.settings.tasks}

    def shares(self, task: Task, subjects: int) -> list[Share]:
        """Where the time of a batch of ours goes."""
        way = self._made(Method.OURS, replace(self.settings, steps=2, sample_steps=2))
        return time_shares(way, task, subjects=subjects)

    def _personalize(self, case: Case) -> Measured:
        count = case.subjects
        chosen = checked(count, self.settings.checked)
        for subject in chosen:
            if subject not in self._alone_numbers:
                (self._alone_numbers[subject],) = self.way.personalize([subject])
        clock = self._clocked(lambda: self.way.personalize(range(count)))
        differences = [weight_difference(clock.result[row], self._alone_numbers[row]) for row in chosen]
        return Measured(
            clock.seconds / count, clock.cpu_seconds / count, clock.peak_bytes, max(differences, default=None)
        )

    def _generate(self, case: Case) -> Measured:
        wanted = orders(case.subjects, case.mix)
        self.way.prepare([order.subject for order in wanted])
        chosen = checked(len(wanted), self.settings.checked)
        for row in chosen:
            if wanted[row] not in self._alone_pictures:
                (self._alone_pictures[wanted[row]],) = self.way.generate([wanted[row]])
        clock = self._clocked(lambda: self.way.generate(wanted))
        differences = [pixel_difference(clock.result[row], self._alone_pictures[wanted[row]]) for row in chosen]
        return Measured(
            clock.seconds / len(wanted),
            clock.cpu_seconds / len(wanted),
            clock.peak_bytes,
            max(differences, default=None),
        )

    def _clocked(self, call: Callable[[], Sequence[Result]]) -> Clocked[Sequence[Result]]:
        if self.settings.acceleration == "compile":
            call()  # a batch of a new size may have to be compiled for
        return clocked(call, self.settings.torch_device)


def checked(count: int, at_most: int) -> list[int]:
    """Rows that are also run alone: the first, the last, and some between."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, at_most))})


def weight_difference(together: Numbers, alone: Numbers) -> float:
    """‖together - alone‖ / ‖alone‖."""
    return float(np.linalg.norm(together - alone) / np.linalg.norm(alone))


def pixel_difference(together: Image.Image, alone: Image.Image) -> float:
    """The largest difference of any channel, of 255."""
    return float(np.abs(np.asarray(together, np.int16) - np.asarray(alone, np.int16)).max())
