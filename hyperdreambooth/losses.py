"""The denoising loss, per sample: who sums and who averages is the caller's to say."""

import torch
from torch import Tensor
from torch.nn import functional as F

from hyperdreambooth.diffusion import BaseModel

# Where the head is in an aligned portrait (see PORTRAIT_TEMPLATE in `faces.py`): an ellipse, in fractions of the side.
HEAD_CENTRE = (0.5, 0.5)
HEAD_RADII = (0.32, 0.44)


def denoising_loss(
    base_model: BaseModel,
    latents: Tensor,
    prompt_embeddings: Tensor,
    *,
    timesteps: Tensor,
    noise: Tensor,
    weights: Tensor | None = None,  # [h, w], of mean 1
) -> Tensor:
    """‖prediction - target‖² averaged over a sample's numbers: [B] (paper, equation 1)."""
    signal, spread = noise_rates(base_model, timesteps, latents)
    predicted = base_model.unet(
        signal * latents + spread * noise, timesteps, encoder_hidden_states=prompt_embeddings
    ).sample
    match base_model.scheduler.config.prediction_type:
        case "epsilon":
            target = noise
        case "v_prediction":
            target = signal * noise - spread * latents  # Salimans and Ho 2022
        case "sample":
            target = latents
        case other:
            raise ValueError(f"unknown prediction type {other}")
    loss_dtype = torch.promote_types(latents.dtype, torch.float32)
    errors = F.mse_loss(predicted.to(loss_dtype), target.to(loss_dtype), reduction="none")
    return (errors if weights is None else errors * weights).mean(dim=(1, 2, 3))


def head_weights(latents: Tensor, *, background: float) -> Tensor:
    """Weights [h, w] of mean 1: the head of an aligned portrait counts fully, what is around it by `background`."""
    height, width = latents.shape[-2:]
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    across, down = (columns - HEAD_CENTRE[0]) / HEAD_RADII[0], (rows - HEAD_CENTRE[1]) / HEAD_RADII[1]
    is_head = across[None, :] ** 2 + down[:, None] ** 2 < 1
    weights = torch.where(is_head, 1.0, background)
    return (weights / weights.mean()).to(latents.device, latents.dtype, non_blocking=True)


def noise_rates(base_model: BaseModel, timesteps: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    """How much picture and how much noise a timestep holds: sqrt(alpha-bar) and sqrt(1 - alpha-bar), [B, 1, 1, 1].

    Rounded last: to bfloat16, the first alpha-bars are 1, and 1 - alpha-bar nothing.
    """
    exact = torch.promote_types(latents.dtype, torch.float32)
    alpha_bars = base_model.scheduler.alphas_cumprod.to(latents.device, exact, non_blocking=True)
    alpha_bar = alpha_bars[timesteps][:, None, None, None]
    return alpha_bar.sqrt().to(latents.dtype), (1 - alpha_bar).sqrt().to(latents.dtype)


def stratified_timesteps(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """`count` timesteps, one in each of `count` equal parts of the schedule: as random, but with less luck in it."""
    places = (torch.rand(1, generator=generator) + torch.arange(count)) / count
    return (places * steps).long().clamp(max=steps - 1)
