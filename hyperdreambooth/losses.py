"""The denoising loss, per sample: who sums and who averages is the caller's to say."""

import torch
from torch import Tensor
from torch.nn import functional as F

from hyperdreambooth.diffusion import BaseModel


def denoising_loss(
    base_model: BaseModel, latents: Tensor, prompt_embeddings: Tensor, *, timesteps: Tensor, noise: Tensor
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
    return F.mse_loss(predicted.to(loss_dtype), target.to(loss_dtype), reduction="none").mean(dim=(1, 2, 3))


def noise_rates(base_model: BaseModel, timesteps: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    """How much picture and how much noise a timestep holds: sqrt(alpha-bar) and sqrt(1 - alpha-bar), [B, 1, 1, 1]."""
    alpha_bar = base_model.scheduler.alphas_cumprod.to(latents)[timesteps][:, None, None, None]
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def stratified_timesteps(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """`count` timesteps, one in each of `count` equal parts of the schedule: as random, but with less luck in it."""
    places = (torch.rand(1, generator=generator) + torch.arange(count)) / count
    return (places * steps).long().clamp(max=steps - 1)
