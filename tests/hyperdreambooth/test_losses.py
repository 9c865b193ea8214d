from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from diffusers import DDPMScheduler

from hyperdreambooth.diffusion import BaseModel, encode_tokens, load_base_model, tokenize
from hyperdreambooth.faces import PORTRAIT_TEMPLATE
from hyperdreambooth.losses import denoising_loss, head_weights, noise_rates, stratified_timesteps
from tests.hyperdreambooth.conftest import CPU, write_tiny_folder


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_that_of_diffusers_own_scheduler(tmp_path: Path, prediction_type: str) -> None:
    write_tiny_folder(tmp_path, prediction_type=prediction_type)
    base_model = load_base_model(str(tmp_path), device=CPU, dtype=torch.float32)
    scheduler, generator = base_model.scheduler, torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, *base_model.latent_shape, generator=generator)
    timesteps = torch.tensor([3, 500, 990])
    embeddings = encode_tokens(base_model, tokenize(base_model, ["a face"] * 3))

    loss = denoising_loss(base_model, latents, embeddings, timesteps=timesteps, noise=noise)

    noisy = scheduler.add_noise(latents, noise, timesteps)
    predicted = base_model.unet(noisy, timesteps, encoder_hidden_states=embeddings).sample
    velocity = scheduler.get_velocity(latents, noise, timesteps)
    target = {"epsilon": noise, "v_prediction": velocity, "sample": latents}[prediction_type]
    torch.testing.assert_close(loss, (predicted - target).square().mean(dim=(1, 2, 3)), rtol=1e-4, atol=1e-5)


def test_signal_and_noise_keep_the_variance(tmp_path: Path) -> None:
    write_tiny_folder(tmp_path, prediction_type="v_prediction")
    base_model = load_base_model(str(tmp_path), device=CPU, dtype=torch.float32)
    timesteps = torch.arange(0, 1000, 111)
    signal, spread = noise_rates(base_model, timesteps, torch.zeros(1))
    torch.testing.assert_close(signal**2 + spread**2, torch.ones(len(timesteps), 1, 1, 1))


def test_the_first_timesteps_have_noise_in_half_precision_too() -> None:
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    base_model = cast(BaseModel, SimpleNamespace(scheduler=scheduler))
    timesteps = torch.arange(1000)
    exact = noise_rates(base_model, timesteps, torch.zeros(1))
    for found, wanted in zip(
        noise_rates(base_model, timesteps, torch.zeros(1, dtype=torch.bfloat16)), exact, strict=True
    ):
        assert found.dtype is torch.bfloat16
        torch.testing.assert_close(found.float(), wanted, rtol=2**-8, atol=0)


def test_stratified_timesteps_cover_the_schedule() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([stratified_timesteps(4, 1000, generator) for _ in range(500)])
    assert (draws // 250 == torch.arange(4)).all()
    # One uniform place a draw: the mean of 2 000 timesteps is within 5 standard errors of the middle.
    assert abs(draws.float().mean().item() - 499.5) < 5 * 72.2 / 500**0.5


def test_the_head_counts_and_its_surroundings_hardly_do() -> None:
    weights = head_weights(torch.zeros(1, 4, 64, 48), background=0.1)
    assert weights.shape == (64, 48)
    assert weights.mean().item() == pytest.approx(1)
    assert weights[32, 24] / weights[0, 0] == pytest.approx(10)
    # Eyes, nose and mouth of every aligned portrait are inside.
    places = (torch.from_numpy(PORTRAIT_TEMPLATE) * torch.tensor([48, 64])).long()
    assert all(weights[row, column] == weights.max() for column, row in places.tolist())
    assert (head_weights(torch.zeros(1, 4, 8, 8), background=1.0) == 1).all()
