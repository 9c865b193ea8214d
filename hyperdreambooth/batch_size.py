"""How many subjects are best finetuned together on this device: measured, before anybody waits for it.

Twice the subjects cost less than twice the time until the device is busy, and twice the memory always. So sizes are
tried from one subject on, until the time of each falls no more, memory would not suffice, or the time is up.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

import torch
from torch import Tensor

from hyperdreambooth.finetune import Examples, fast_finetune
from hyperdreambooth.lidb import relax_rank, shared_start
from hyperdreambooth.memory import available_bytes, peak_bytes, watch_peak
from hyperdreambooth.personalize import Networks

SIZES = (1, 2, 4, 8, 16, 32)
MIN_GAIN = 0.05  # no larger size that was tried saves more than this share of a subject's time
PATIENCE = 2  # so many sizes without a gain end the search: one of them may have been disturbed
# Where the time was too short to tell: every processor that was measured had its full rate by then.
UNTOLD = 4
STEPS = 3  # the fastest counts; the first is slower, since memory of that size was never asked for
STEPS_SHARE = 0.1  # of all the time: a size that took longer takes no further step
CPU_SECONDS, GPU_SECONDS = 3.0, 20.0


class End(StrEnum):
    """Why no larger size was tried."""

    NO_GAIN = "no_gain"
    MEMORY = "memory"
    TIME = "time"
    LARGEST = "largest"


class TimeIsUp(Exception):
    """Raised inside a step that takes too long."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one step of a batch took."""

    subjects: int
    seconds: float
    memory: int  # bytes at the peak, beyond what the networks hold

    @property
    def seconds_each(self) -> float:
        """The share of one subject."""
        return self.seconds / self.subjects


@dataclass(frozen=True, kw_only=True)
class Found:
    """The size to use, and all that led to it."""

    batch_size: int
    end: End
    measured: Sequence[Measured]


def find_batch_size(networks: Networks, *, seconds: float | None = None) -> Found:
    """Finetune noise in batches of growing size. The networks are afterwards what they were before."""
    device = networks.base_model.device
    seconds = seconds or (GPU_SECONDS if device.type == "cuda" else CPU_SECONDS)
    trial = Trial(networks, seconds)
    try:
        with ending_at(networks, trial.deadline):
            return search(trial, room=available_bytes(device), seconds=seconds)
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def search(
    measure: Callable[[int], Measured], *, room: int, seconds: float, clock: Callable[[], float] = time.monotonic
) -> Found:
    """Measure one size after the other, for so many seconds, until something says that larger ones won't do better."""
    deadline, measured = clock() + seconds, list[Measured]()
    while (end := reason_to_end(measured, room=room, seconds_left=deadline - clock())) is None:
        try:
            measured.append(measure(SIZES[len(measured)]))
        except torch.OutOfMemoryError:
            end = End.MEMORY
            break
        except TimeIsUp:
            end = End.TIME
            break
    return Found(batch_size=best_size(measured, end, room=room), end=end, measured=measured)


def reason_to_end(measured: Sequence[Measured], *, room: int, seconds_left: float) -> End | None:
    """Why not to try the next size; None: try it."""
    if not measured:
        return None
    times, last = [one.seconds_each for one in measured], measured[-1]
    if 2 * last.memory > room:
        return End.MEMORY
    if len(times) > PATIENCE and min(times[-PATIENCE:]) > (1 - MIN_GAIN) * min(times[:-PATIENCE]):
        return End.NO_GAIN
    if len(measured) == len(SIZES):
        return End.LARGEST
    return End.TIME if 2 * last.seconds > seconds_left else None


def best_size(measured: Sequence[Measured], end: End, *, room: int) -> int:
    """The smallest size to which no larger one is a gain, of those that fit."""
    fitting = [one for one in measured if one.memory <= room]
    if not fitting:
        return 1  # nobody knows what a batch would need
    fastest, last = min(one.seconds_each for one in fitting), fitting[-1]
    enough = next(one.subjects for one in fitting if (1 - MIN_GAIN) * one.seconds_each <= fastest)
    untold_fits = UNTOLD * last.memory <= room * last.subjects
    return max(enough, UNTOLD) if end is End.TIME and untold_fits else enough


class Trial:
    """Takes a few steps with subjects that are nobody: their faces are noise, and nothing of them is kept."""

    def __init__(self, networks: Networks, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self._networks, self._device = networks, networks.base_model.device
        self._size_seconds = STEPS_SHARE * seconds
        self._held = watch_peak(self._device)  # by the networks alone
        self._is_warm = False

    def __call__(self, subjects: int) -> Measured:
        """What a step of so many takes."""
        if not self._is_warm:
            self._steps(1, steps=1)
            self._is_warm = True
        moments = self._steps(subjects, steps=STEPS)
        seconds = min(after - before for before, after in pairwise(moments))
        memory = max(0, peak_bytes(self._device) - self._held)
        return Measured(subjects=subjects, seconds=seconds, memory=memory)

    def _steps(self, subjects: int, *, steps: int) -> list[float]:
        """The moments between steps; fewer than asked for if they take long."""
        moments = [self._now()]

        def on_step(step: int, total: int) -> list[bool]:
            moments.append(self._now())
            return [moments[-1] - moments[0] < self._size_seconds] * subjects

        networks, config = self._networks, self._networks.config
        finetune = config.finetune if networks.hypernetwork else config.finetune_from_start
        finetune = replace(finetune, steps=steps, stop_below=0.0)
        generators = [torch.Generator().manual_seed(seed) for seed in range(subjects)]
        start = shared_start(networks.basis, subjects=subjects)
        lidb = relax_rank(start, finetune.rank, generators, std=finetune.new_rank_std)
        prompts = [config.fill_prompt(config.instance_prompt)] * subjects
        examples = Examples(self._noise(generators), prompts, generators)
        fast_finetune(networks.base_model, lidb, examples, finetune, on_step=on_step)
        return moments

    def _noise(self, generators: Sequence[torch.Generator]) -> Tensor:
        base_model = self._networks.base_model
        noise = [torch.randn(base_model.latent_shape, generator=generator) for generator in generators]
        return torch.stack(noise).to(self._device, base_model.dtype)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.monotonic()


@contextmanager
def ending_at(networks: Networks, deadline: float) -> Iterator[None]:
    """Within the block, the networks raise TimeIsUp from then on: of a large model a single step may take minutes."""

    def look(*_: object) -> None:
        if time.monotonic() > deadline:
            raise TimeIsUp

    hooks = [layer.register_forward_pre_hook(look) for layer in networks.base_model.targets.values()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
