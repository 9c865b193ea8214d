"""What all stages of `mini` have in common: on which device, how large a batch, for how many steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from hyperdreambooth.recipes.parallel import split
from hyperdreambooth.recipes.pictures import PicturesConfig
from hyperdreambooth.recipes.schedule import Budget, Deadline

CPU = torch.device("cpu")
GPU_BATCH = 4  # times the batch of a CPU


def chosen_device(name: str) -> torch.device:
    """`auto` is the GPU, if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@dataclass(frozen=True, kw_only=True)
class WorkConfig:
    """Where a stage works, on which people, and until when."""

    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    base: str = "base"  # the base model, in the work folder
    seed: int = 0
    device: torch.device = CPU
    deadline: Deadline = field(default_factory=Deadline)
    start: Path | None = None  # a folder as `mini` is shipped in, instead of random weights

    @property
    def folder(self) -> Path:
        return self.pictures.folder

    def on(self, device: torch.device) -> Self:
        """The same on another device."""
        return replace(self, device=device)


@dataclass(frozen=True, kw_only=True)
class StageConfig(WorkConfig):
    """A training. Defaults of the stages are for two CPU cores; `on` makes them fit another device."""

    steps: int
    batch: int
    learning_rate: float
    warmup_steps: int
    flat_share: float  # of the steps, before the learning rate falls along a cosine to zero
    threads: int = 2  # each takes a part of the batch

    def on(self, device: torch.device) -> Self:
        """On a GPU one thread has a larger batch, and the learning rate grows with its square root, as Adam's noise."""
        if device.type == "cpu":
            return replace(self, device=device)
        rate = self.learning_rate * GPU_BATCH**0.5
        return replace(self, device=device, threads=1, batch=self.batch * GPU_BATCH, learning_rate=rate)

    def budget(self) -> Budget:
        return Budget(
            total=self.steps, flat_share=self.flat_share, warmup_steps=self.warmup_steps, deadline=self.deadline
        )

    def parts(self, batch: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """A batch on the device, one part for each thread."""
        return split([tensor.to(self.device) for tensor in batch], parts=self.threads)
