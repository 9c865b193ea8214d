"""One denoising loop for pictures of any subjects, prompts, seeds, step counts and guidance.

No operator of the UNet mixes samples, so each picture is what it would be alone. Pictures with fewer steps leave early.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hyperdreambooth.config import SampleConfig

OnStep = Callable[[int, int], object]  # step just done (from 1), steps in all


class Denoiser(Protocol):
    """The UNet, with what the pictures show and of whom."""

    def seat(self, places: Sequence[int]) -> None:
        """Prepare for these pictures."""

    def predict(self, latents: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction for each of them without its prompt and with it."""


@dataclass(eq=False)
class Strand:
    """Pictures with equally many steps: they share a scheduler's state and nothing else."""

    places: Sequence[int]  # in the caller's list
    generators: Sequence[torch.Generator]  # each picture's own, on the CPU
    scheduler: Any
    timesteps: Tensor  # on the CPU: schedulers look at their values, and would wait for a GPU each time
    shown_timesteps: Tensor  # the same for the UNet, where it is
    latents: Tensor  # [B, c, h, w]
    guidance: Tensor  # [B, 1, 1, 1]

    @classmethod
    def begin(
        cls,
        scheduler: Any,  # noqa: ANN401 - diffusers' schedulers have no common class
        noise: Tensor,
        places: Sequence[int],
        generators: Sequence[torch.Generator],
        configs: Sequence[SampleConfig],
    ) -> "Strand":
        """A scheduler of their own, and noise as loud as it wants it."""
        scheduler = type(scheduler).from_config(scheduler.config)
        scheduler.set_timesteps(configs[0].steps)
        guidance = torch.tensor([config.guidance for config in configs]).to(noise)[:, None, None, None]
        timesteps, latents = scheduler.timesteps, noise * scheduler.init_noise_sigma
        return cls(places, generators, scheduler, timesteps, timesteps.to(noise.device), latents, guidance)

    def inputs(self, step: int) -> tuple[Tensor, Tensor]:
        """What the UNet gets to see: latents [B, c, h, w] and timesteps [B]."""
        latents = self.scheduler.scale_model_input(self.latents, self.timesteps[step])
        return latents, self.shown_timesteps[step].expand(len(self.places))

    def advance(self, step: int, negative: Tensor, positive: Tensor) -> None:
        """ε = ε(negative) + guidance (ε(prompt) - ε(negative)), whatever the UNet predicts in ε's place."""
        predicted = negative + self.guidance * (positive - negative)
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        arguments = {"generator": list(self.generators)} if takes_generator else {}
        self.latents = self.scheduler.step(predicted, self.timesteps[step], self.latents, **arguments).prev_sample


def denoise(denoiser: Denoiser, strands: Sequence[Strand], on_step: OnStep) -> None:
    """Bring every strand to its end (classifier-free guidance, Ho and Salimans 2022)."""
    total = max(len(strand.timesteps) for strand in strands)
    seated: list[Strand] = []
    for step in range(total):
        running = [strand for strand in strands if step < len(strand.timesteps)]
        if len(running) != len(seated):
            seated = running
            denoiser.seat([place for strand in running for place in strand.places])
        latents, timesteps = (
            torch.cat(parts) for parts in zip(*(strand.inputs(step) for strand in running), strict=True)
        )
        sizes = [len(strand.places) for strand in running]
        halves = zip(*(torch.split(half, sizes) for half in denoiser.predict(latents, timesteps)), strict=True)
        for strand, (negative, positive) in zip(running, halves, strict=True):
            strand.advance(step, negative, positive)
        on_step(step + 1, total)
