"""Sharpen the decoder of `mini` alone: `python -m hyperdreambooth.recipes.train_decoder`.

The latents stay what they are, so neither the UNet nor the hypernetwork notices. Squares and edges alone leave a blur,
the mean of all that a latent may have been; a discriminator takes it away. Some latents are the UNet's own, since those
are what the decoder will get, and all have a little noise. The exported weights are a moving average. Resumable.
"""

import copy
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hyperdreambooth.acceleration import quick_products
from hyperdreambooth.diffusion import BaseModel, encode_tokens, load_base_model, tokenize
from hyperdreambooth.recipes.architecture import AutoencoderKL, Network, export_network
from hyperdreambooth.recipes.checkpoints import Checkpoint
from hyperdreambooth.recipes.discriminator import Discriminator, decoder_losses, discriminator_loss
from hyperdreambooth.recipes.parallel import Gradients
from hyperdreambooth.recipes.pictures import load_pictures
from hyperdreambooth.recipes.progress import Progress
from hyperdreambooth.recipes.schedule import set_learning_rate
from hyperdreambooth.recipes.stage import StageConfig
from hyperdreambooth.recipes.train_base import BaseConfig, cached_captions, cached_latents, update_average
from hyperdreambooth.recipes.train_vae import (
    HELD_OUT,
    VaeConfig,
    face_weights,
    reconstruction_loss,
    report,
    to_pixels,
)

REDRAWING_STEPS = 10  # of a whole drawing; a latent goes back by one to five of them and is drawn anew from there
REDRAWN_AT_ONCE = 50


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(StageConfig):
    """Steps are what the shipped weights took."""

    steps: int = 2400
    batch: int = 32
    learning_rate: float = 4e-4
    warmup_steps: int = 50
    flat_share: float = 0.5
    noise: float = 0.1  # its deviation; a latent has deviation 1
    redrawn: int = 6000  # latents that the UNet has drawn anew
    redrawn_share: float = 0.25  # of a batch
    adversarial_weight: float = 0.05
    feature_weight: float = 1.0
    average_steps: int = 4
    average_decay: float = 0.98


def main(config: DecoderConfig) -> None:
    """Train on the cached latents, and replace the autoencoder in `base/`."""
    pictures = torch.from_numpy(load_pictures(config.pictures)[0])
    vae = AutoencoderKL.from_pretrained(config.folder / "vae").to(config.device)
    averaged, discriminator = copy.deepcopy(vae), new_discriminator(config)
    latents = cached_latents(vae, BaseConfig(pictures=config.pictures, device=config.device))
    redrawn = cached_redrawn(latents, config)
    decoder = [*vae.post_quant_conv.parameters(), *vae.decoder.parameters()]
    parameters = [*decoder, *discriminator.parameters()]
    adam = torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.5, 0.99), weight_decay=0)
    checkpoint = Checkpoint(config.folder / "decoder.pt", networks=[vae, averaged, discriminator], optimizers=[adam])
    budget = config.budget()
    budget.resume(checkpoint.load())
    progress = Progress("decoder", total=config.steps, every=30, done=budget.steps)
    gradients = Gradients(parameters, threads=config.threads)
    weights = face_weights(pictures.shape[1], VaeConfig.face_weight).to(config.device)
    loss_of = partial(loss_of_both, vae, discriminator, weights, config)
    while budget.left():
        set_learning_rate([adam], budget.factor())
        generator = budget.generator(config.seed)
        chosen, drawn = draw_latents(latents, redrawn, config, generator)
        discriminator.follow_weights()
        loss = gradients(loss_of, config.parts([to_pixels(pictures[chosen].to(config.device)), drawn]))
        nn.utils.clip_grad_norm_(decoder, 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        budget.advance()
        progress.advance(loss=loss)
        if budget.steps % config.average_steps == 0:
            update_average([averaged], [vae], config.average_decay)
        if budget.every(minutes=3):
            checkpoint.save(budget.state())
    checkpoint.save(budget.state())
    budget.check_spent()
    report(averaged, to_pixels(pictures[-HELD_OUT:].to(config.device)), config.folder / "decoder.png")
    export_network(averaged, config.folder / "base" / "vae")


def new_discriminator(config: DecoderConfig) -> Discriminator:
    torch.manual_seed(config.seed)
    return Discriminator().to(config.device)


def draw_latents(
    latents: Tensor, redrawn: tuple[Tensor, Tensor], config: DecoderConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Which pictures [B], and a latent of each [B, c, h, w]: the first of them as the UNet draws it."""
    own, drawn = redrawn
    chosen = torch.randint(len(latents) - HELD_OUT, (config.batch,), generator=generator)
    again = torch.randint(len(own), (round(config.redrawn_share * config.batch),), generator=generator)
    noise = config.noise * torch.randn((config.batch, *latents.shape[1:]), generator=generator)
    chosen[: len(again)] = own[again]
    clean = latents[chosen]
    clean[: len(again)] = drawn[again]
    return chosen, clean + noise


def loss_of_both(
    vae: Network, discriminator: Discriminator, weights: Tensor, config: DecoderConfig, part: tuple[Tensor, ...]
) -> Tensor:
    """The decoder's loss and the discriminator's: neither has a gradient in the other's weights."""
    pixels, latents = part
    with quick_products(latents.device):
        decoded = vae.decode(latents).sample.float()
        adversarial, features = decoder_losses(discriminator, pixels, decoded)
        own = discriminator_loss(discriminator, pixels, decoded)
    reconstruction = reconstruction_loss(decoded, pixels, weights, VaeConfig())
    return reconstruction + config.adversarial_weight * adversarial + config.feature_weight * features + own


def cached_redrawn(latents: Tensor, config: DecoderConfig) -> tuple[Tensor, Tensor]:
    """Places in `latents` [n], and what the UNet of `base/` makes of them [n, c, h, w]."""
    path: Path = config.folder / "redrawn.npz"
    if not path.exists():
        captions = [row[0] for row in cached_captions(BaseConfig(pictures=config.pictures))]
        count = min(config.redrawn, math.ceil(config.steps * config.redrawn_share * config.batch))
        places = np.random.default_rng(config.seed).integers(len(latents) - HELD_OUT, size=count)
        base_model = load_base_model(str(config.folder / "base"), device=config.device, dtype=torch.float32)
        parts = np.split(places, range(REDRAWN_AT_ONCE, len(places), REDRAWN_AT_ONCE))
        progress, drawn = Progress("redrawn", total=len(parts), unit="batches", every=30), []
        for seed, part in enumerate(parts):
            with quick_products(config.device):
                drawn.append(redraw(base_model, latents[part], [captions[place] for place in part], seed=seed))
            progress.advance()
        np.savez(path, places=places, latents=torch.cat(drawn).cpu().half().numpy())
    with np.load(path) as kept:
        return torch.from_numpy(kept["places"]), torch.from_numpy(kept["latents"]).float()


@torch.no_grad()
def redraw(base_model: BaseModel, latents: Tensor, prompts: list[str], *, seed: int) -> Tensor:
    """Part of the way back to noise, and forth again under the picture's own caption (Meng et al. 2022)."""
    generator, scheduler = torch.Generator().manual_seed(seed), base_model.scheduler
    scheduler.set_timesteps(REDRAWING_STEPS)
    steps = int(torch.randint(1, REDRAWING_STEPS // 2 + 1, (1,), generator=generator))
    timesteps = scheduler.timesteps[-steps:]
    noise = torch.randn(latents.shape, generator=generator)
    noisy = scheduler.add_noise(latents, noise, timesteps[:1].expand(len(latents))).to(base_model.device)
    embeddings = encode_tokens(base_model, tokenize(base_model, prompts))
    for timestep in timesteps:
        predicted = base_model.unet(noisy, timestep, encoder_hidden_states=embeddings).sample
        noisy = scheduler.step(predicted, timestep, noisy).prev_sample
    drawn: Tensor = noisy
    return drawn


if __name__ == "__main__":
    main(DecoderConfig())
