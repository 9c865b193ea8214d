"""Sharpen the decoder of `mini` alone: `python -m hyperdreambooth.recipes.train_decoder`.

The latents stay what they are, so neither the UNet nor the hypernetwork notices. The decoder sees latents with a little
noise, because those it will get from the UNet are not quite right either.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from hyperdreambooth.recipes.architecture import AutoencoderKL, Network, export_network
from hyperdreambooth.recipes.checkpoints import Checkpoint
from hyperdreambooth.recipes.parallel import Gradients
from hyperdreambooth.recipes.pictures import load_pictures
from hyperdreambooth.recipes.progress import Progress
from hyperdreambooth.recipes.schedule import set_learning_rate
from hyperdreambooth.recipes.stage import StageConfig
from hyperdreambooth.recipes.train_vae import (
    HELD_OUT,
    VaeConfig,
    face_weights,
    reconstruction_loss,
    report,
    to_pixels,
)


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(StageConfig):
    """Steps are what the shipped weights took."""

    steps: int = 1443
    batch: int = 16
    learning_rate: float = 8e-4
    warmup_steps: int = 50
    flat_share: float = 0
    noise: float = 0.1  # its deviation; a latent has deviation 1


def main(config: DecoderConfig) -> None:
    """Train on the cached latents, and replace the autoencoder in `base/`."""
    pictures = torch.from_numpy(load_pictures(config.pictures)[0])
    latents = torch.from_numpy(np.load(config.folder / "latents.npy"))
    vae = AutoencoderKL.from_pretrained(config.folder / "vae").to(config.device)
    parameters = [*vae.post_quant_conv.parameters(), *vae.decoder.parameters()]
    adam = torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0)
    checkpoint = Checkpoint(config.folder / "decoder.pt", networks=[vae], optimizers=[adam])
    budget = config.budget()
    budget.resume(checkpoint.load())
    progress = Progress("decoder", total=config.steps, every=30, done=budget.steps)
    gradients = Gradients(parameters, threads=config.threads)
    weights = face_weights(pictures.shape[1], VaeConfig.face_weight).to(config.device)
    loss_of = partial(decoder_loss, vae, weights)
    while budget.left():
        set_learning_rate([adam], budget.factor())
        generator = budget.generator(config.seed)
        chosen = torch.randint(len(pictures) - HELD_OUT, (config.batch,), generator=generator)
        noise = config.noise * torch.randn((config.batch, *latents.shape[1:]), generator=generator)
        batch = [to_pixels(pictures[chosen].to(config.device)), latents[chosen].float() + noise]
        loss = gradients(loss_of, config.parts(batch))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        budget.advance()
        progress.advance(loss=loss)
        if budget.every(minutes=3):
            checkpoint.save(budget.state())
    checkpoint.save(budget.state())
    budget.check_spent()
    report(vae, to_pixels(pictures[-HELD_OUT:].to(config.device)), config.folder / "decoder.png")
    export_network(vae, config.folder / "base" / "vae")


def decoder_loss(vae: Network, weights: Tensor, part: tuple[Tensor, ...]) -> Tensor:
    """What the autoencoder was trained on, without its encoder."""
    pixels, latents = part
    with torch.autocast(latents.device.type, torch.bfloat16):
        decoded = vae.decode(latents).sample
    return reconstruction_loss(decoded.float(), pixels, weights, VaeConfig())


if __name__ == "__main__":
    main(DecoderConfig())
