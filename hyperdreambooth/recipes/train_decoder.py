"""Sharpen the decoder of `mini` alone: `python -m hyperdreambooth.recipes.train_decoder`.

The latents stay what they are, so neither the UNet nor the hypernetwork notices. The decoder sees latents with a little
noise, because those it will get from the UNet are not quite right either.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hyperdreambooth.recipes.architecture import AutoencoderKL, Network, export_network
from hyperdreambooth.recipes.checkpoints import Checkpoint
from hyperdreambooth.recipes.parallel import Gradients, split
from hyperdreambooth.recipes.pictures import PicturesConfig, load_pictures
from hyperdreambooth.recipes.progress import Progress
from hyperdreambooth.recipes.schedule import Budget, set_learning_rate
from hyperdreambooth.recipes.train_vae import (
    HELD_OUT,
    VaeConfig,
    face_weights,
    reconstruction_loss,
    report,
    to_pixels,
)


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Minutes are of two CPU cores."""

    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    minutes: float = 6
    batch: int = 16
    learning_rate: float = 8e-4
    warmup_steps: int = 50
    noise: float = 0.1  # its deviation; a latent has deviation 1
    seed: int = 0
    threads: int = 2

    @property
    def folder(self) -> Path:
        return self.pictures.folder


def main(config: DecoderConfig) -> None:
    """Train on the cached latents, and replace the autoencoder in `base/`."""
    pictures = torch.from_numpy(load_pictures(config.pictures)[0])
    latents = torch.from_numpy(np.load(config.folder / "latents.npy"))
    vae = AutoencoderKL.from_pretrained(config.folder / "vae")
    parameters = [*vae.post_quant_conv.parameters(), *vae.decoder.parameters()]
    adam = torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0)
    checkpoint = Checkpoint(config.folder / "decoder.pt", networks=[vae], optimizers=[adam])
    budget = Budget(minutes=config.minutes, flat_share=0, warmup_steps=config.warmup_steps)
    budget.resume(checkpoint.load())
    progress = Progress("decoder", total=round(config.minutes * 60), unit="s", every=30, done=int(budget.seconds()))
    generator = torch.Generator().manual_seed(config.seed + budget.steps)
    gradients = Gradients(parameters, threads=config.threads)
    loss_of = partial(decoder_loss, vae, face_weights(pictures.shape[1], VaeConfig.face_weight))
    while budget.left():
        set_learning_rate([adam], budget.factor())
        chosen = torch.randint(len(pictures) - HELD_OUT, (config.batch,), generator=generator)
        noise = config.noise * torch.randn((config.batch, *latents.shape[1:]), generator=generator)
        batch = [to_pixels(pictures[chosen]), latents[chosen].float() + noise]
        loss = gradients(loss_of, split(batch, parts=config.threads))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        progress.advance(budget.advance(), steps=budget.steps, loss=loss)
        if budget.every(minutes=3):
            checkpoint.save(budget.state())
    checkpoint.save(budget.state())
    report(vae, to_pixels(pictures[-HELD_OUT:]), config.folder / "decoder.png")
    export_network(vae, config.folder / "base" / "vae")


def decoder_loss(vae: Network, weights: Tensor, part: tuple[Tensor, ...]) -> Tensor:
    """What the autoencoder was trained on, without its encoder."""
    pixels, latents = part
    with torch.autocast("cpu", torch.bfloat16):
        decoded = vae.decode(latents).sample
    return reconstruction_loss(decoded.float(), pixels, weights, VaeConfig())


if __name__ == "__main__":
    main(DecoderConfig())
