"""The loop that all baselines share: one picture of the subject a step, and one of its class where a prior is kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hyperdreambooth.baselines.budgets import Budget
from hyperdreambooth.baselines.personalized import Trainable
from hyperdreambooth.config import PersonalizeConfig, SampleConfig
from hyperdreambooth.diffusion import BaseModel, encode_images, encode_tokens, sample, tokenize
from hyperdreambooth.losses import denoising_loss

DRAWN_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Example:
    """The one picture of a subject, and how it is asked for."""

    latents: Tensor  # [1, c, h, w]
    prompt: str  # with `{subject}` in it
    generator: torch.Generator  # the subject's own, on the CPU


@dataclass(frozen=True, eq=False)
class ClassImages:
    """What the base model draws when asked for the class: what prior preservation preserves."""

    latents: Tensor  # [n, c, h, w]
    prompt: str


def draw_class_images(
    base_model: BaseModel, config: PersonalizeConfig, *, count: int, seed: int, sampling: SampleConfig | None = None
) -> ClassImages:
    """Class images serve every subject: draw them once."""
    prompt = config.instance_prompt.replace("{subject}", config.class_noun)
    parts = []
    for start in range(0, count, DRAWN_AT_ONCE):
        seeds = range(seed + start, seed + min(start + DRAWN_AT_ONCE, count))
        images = sample(base_model, [prompt] * len(seeds), seeds=seeds, config=sampling or config.sample)
        parts.append(encode_images(base_model, images))
    return ClassImages(torch.cat(parts), prompt)


def train(
    base_model: BaseModel, method: Trainable, example: Example, budget: Budget, *, prior: ClassImages | None = None
) -> None:
    """loss = ‖ε - ε(photo, "a [V] face")‖² + λ ‖ε - ε(class image, "a face")‖²  (DreamBooth, equation 2)."""
    keeps_prior = budget.prior_images > 0
    assert not keeps_prior or prior is not None, "this budget preserves the prior: draw class images"
    prompts = [example.prompt.replace("{subject}", method.subject)]
    if keeps_prior and prior is not None:
        prompts.append(prior.prompt)
    tokens = tokenize(base_model, prompts)
    share = torch.tensor([1.0, budget.prior_weight][: len(prompts)], device=base_model.device)
    rate, decay = budget.learning_rate, budget.weight_decay
    optimizer = torch.optim.AdamW(method.parameters, lr=rate, weight_decay=decay, fused=True)
    for _ in range(budget.iterations):
        latents = _pictures(example, prior if keeps_prior else None)
        with method.attached(base_model):
            loss = (_losses(base_model, latents, tokens, example.generator) * share).sum()
        gradients = torch.autograd.grad(loss, method.parameters, allow_unused=True)
        for parameter, gradient in zip(method.parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()


def _pictures(example: Example, prior: ClassImages | None) -> Tensor:
    if prior is None:
        return example.latents
    chosen = int(torch.randint(len(prior.latents), (1,), generator=example.generator))
    return torch.cat([example.latents, prior.latents[chosen : chosen + 1]])


def _losses(base_model: BaseModel, latents: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
    timestep_count = base_model.scheduler.config.num_train_timesteps
    timesteps = torch.randint(timestep_count, (len(latents),), generator=generator).to(latents.device)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    embeddings = encode_tokens(base_model, tokens)
    return denoising_loss(base_model, latents, embeddings, timesteps=timesteps, noise=noise)


def trainable_copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]
