"""Fast finetuning: a few dozen steps on the one face (paper, section 4.3), for a whole batch of subjects at once.

No operator of the UNet mixes samples, so S subjects with their own deltas and a SUMMED loss are S separate runs.
Whatever could couple them is kept apart: noise and timesteps, the gradient's clipping, the optimiser's moments and its
step counts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hyperdreambooth.attach import Deltas, attach
from hyperdreambooth.config import FinetuneConfig
from hyperdreambooth.diffusion import BaseModel, encode_tokens, tokenize
from hyperdreambooth.lidb import LiDB
from hyperdreambooth.losses import denoising_loss, head_weights, stratified_timesteps

# Called after each step with the step just done and the steps in all; may answer which subjects go on.
OnFinetuneStep = Callable[[int, int], Sequence[bool] | None]


@dataclass(frozen=True, eq=False)
class Examples:
    """What a batch of subjects is finetuned on."""

    latents: Tensor  # [P, c, h, w]: the faces, subject after subject
    prompts: Sequence[str]  # "a photo of a [V] face"
    generators: Sequence[torch.Generator]  # each subject's own, on the CPU
    photo_counts: Sequence[int] = ()  # of each subject; one each if empty

    def chosen(self, *, draws: int, step: int) -> Tensor:
        """Which face each noise draw of a step looks at: [S * draws].

        A subject's photos take turns within a step, and from step to step at each part of the schedule.
        """
        counts = torch.tensor(self.photo_counts or [1] * len(self.prompts))
        turns = (torch.arange(draws) + step) % counts[:, None]
        return (turns + (counts.cumsum(0) - counts)[:, None]).flatten().to(self.latents.device)


def fast_finetune(
    base_model: BaseModel,
    lidb: LiDB,
    examples: Examples,
    config: FinetuneConfig,
    *,
    on_step: OnFinetuneStep | None = None,
) -> LiDB:
    """Train nothing but the train matrices. A subject's result depends on its own face, prompt and generator alone."""
    tokens = tokenize(base_model, examples.prompts)
    numbers = flatten(lidb).requires_grad_()
    optimizer = SubjectwiseAdam(numbers)
    active = torch.ones(lidb.subjects, dtype=torch.bool, device=numbers.device)
    for step in range(1, config.steps + 1):
        loss = subject_losses(base_model, unflatten(numbers, lidb), examples, tokens, config, step=step).sum()
        (gradient,) = torch.autograd.grad(loss, numbers)
        gradient = clip_each(gradient, config.clip_norm)
        optimizer.step(gradient, learning_rate=learning_rate(step, config), active=active)
        going_on = on_step(step, config.steps) if on_step is not None else None
        if going_on is not None:
            active = torch.tensor(list(going_on), device=numbers.device)
        if not active.any():
            break
    return unflatten(numbers.detach(), lidb)


def subject_losses(
    base_model: BaseModel,
    deltas: Deltas,
    examples: Examples,
    tokens: Tensor,
    config: FinetuneConfig,
    *,
    step: int = 0,
) -> Tensor:
    """The denoising loss of each subject, averaged over its own noise draws: [S]."""
    generators, draws = examples.generators, config.noise_draws
    latents = examples.latents.index_select(0, examples.chosen(draws=draws, step=step))
    timestep_count = base_model.scheduler.config.num_train_timesteps
    timesteps = torch.cat([stratified_timesteps(draws, timestep_count, generator) for generator in generators])
    shape = (draws, *latents.shape[1:])
    noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators]).to(latents)
    with attach(base_model, deltas):
        embeddings = encode_tokens(base_model, tokens).repeat_interleave(draws, dim=0)
        losses = denoising_loss(
            base_model,
            latents,
            embeddings,
            timesteps=timesteps.to(latents.device),
            noise=noise,
            weights=head_weights(latents, background=config.background_weight),
        )
    return losses.view(deltas.subjects, draws).mean(dim=1)


def learning_rate(step: int, config: FinetuneConfig) -> float:
    """Linear warm-up, then a cosine down to a share of the peak. Steps count from 1."""
    warmup = min(1.0, step / config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * (step - 1) / config.steps))
    return config.learning_rate * warmup * (config.final_learning_rate + (1 - config.final_learning_rate) * cosine)


def clip_each(gradient: Tensor, max_norm: float) -> Tensor:
    """Clip each subject's gradient [S, numbers] by its own norm."""
    norms = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    return torch.mul(gradient, max_norm / norms.clamp(min=max_norm))


def flatten(lidb: LiDB) -> Tensor:
    """All train matrices as one tensor [S, numbers]: a step over hundreds of small ones would be all launch cost."""
    return torch.cat([lidb.a_train.flatten(1), lidb.b_train.flatten(1)], dim=1)


def unflatten(numbers: Tensor, like: LiDB) -> LiDB:
    """The inverse of `flatten`."""
    a_train, b_train = torch.tensor_split(numbers, [like.a_train[0].numel()], dim=1)
    return LiDB(like.basis, a_train.view_as(like.a_train), b_train.view_as(like.b_train))


class SubjectwiseAdam:
    """Adam (Kingma and Ba 2015) whose step count, like its moments, belongs to each subject."""

    def __init__(self, numbers: Tensor, *, betas: tuple[float, float] = (0.9, 0.99), epsilon: float = 1e-8) -> None:
        self.numbers = numbers
        self.betas = betas
        self.epsilon = epsilon
        self.first_moment = torch.zeros_like(numbers)
        self.second_moment = torch.zeros_like(numbers)
        self.steps = numbers.new_zeros(numbers.shape[0], 1)

    @torch.no_grad()
    def step(self, gradient: Tensor, *, learning_rate: float, active: Tensor) -> None:
        """Move the active subjects; leave the others' numbers and moments as they are."""
        rows = active[:, None]
        beta1, beta2 = self.betas
        self.steps += rows
        self.first_moment = torch.where(rows, torch.lerp(gradient, self.first_moment, beta1), self.first_moment)
        self.second_moment = torch.where(rows, torch.lerp(gradient**2, self.second_moment, beta2), self.second_moment)
        mean = self.first_moment / (1 - beta1**self.steps)
        root = (self.second_moment / (1 - beta2**self.steps)).sqrt() + self.epsilon
        self.numbers.copy_(torch.where(rows, self.numbers - learning_rate * mean / root, self.numbers))
