"""Train the autoencoder of `mini` on rendered portraits: `python -m hyperdreambooth.recipes.train_vae`.

Its loss looks at colours and at edges, and more closely at the face: what is blurred here, no later stage can draw.
Resumable.
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from hyperdreambooth.acceleration import quick_products
from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.recipes.architecture import DOWNSCALE, Network, load_mini, make_vae
from hyperdreambooth.recipes.checkpoints import Checkpoint
from hyperdreambooth.recipes.parallel import Gradients
from hyperdreambooth.recipes.pictures import load_pictures
from hyperdreambooth.recipes.progress import Progress, say
from hyperdreambooth.recipes.schedule import set_learning_rate
from hyperdreambooth.recipes.sheets import save_sheet
from hyperdreambooth.recipes.stage import StageConfig

HELD_OUT = 256  # the last pictures are never trained on
QUIET = -6.0  # log-variance at the start: noise that does not drown what the encoder has yet to learn


@dataclass(frozen=True, kw_only=True)
class VaeConfig(StageConfig):
    """Steps are what the shipped weights took."""

    steps: int = 8608
    batch: int = 16  # small: at this stage more steps help more than calmer ones
    learning_rate: float = 1.5e-3
    warmup_steps: int = 50
    flat_share: float = 0.3
    kl_weight: float = 5e-7  # of the sum over a picture's latents
    edge_weight: float = 0.7
    square_weight: float = 2.0
    face_weight: float = 2.0  # added to the weight of a pixel in the middle of the face


def main(config: VaeConfig) -> None:
    """Train, then fold the scale of the latents into the weights: `vae/` in the work folder."""
    if (config.folder / "vae").exists():
        return
    pictures = torch.from_numpy(load_pictures(config.pictures)[0])
    training, held_out = pictures[:-HELD_OUT], to_pixels(pictures[-HELD_OUT:].to(config.device))
    vae = (load_mini(config.start).vae if config.start else fresh_vae(config.seed)).to(config.device)
    adam = torch.optim.AdamW(vae.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0)
    checkpoint = Checkpoint(config.folder / "vae.pt", networks=[vae], optimizers=[adam])
    budget = config.budget()
    budget.resume(checkpoint.load())
    progress = Progress("vae", total=config.steps, every=30, done=budget.steps)
    latent_shape = (config.batch, vae.config.latent_channels, *(side // DOWNSCALE for side in training.shape[1:3]))
    gradients = Gradients(list(vae.parameters()), threads=config.threads)
    weights = face_weights(training.shape[1], config.face_weight).to(config.device)
    loss_of = partial(vae_loss, vae, weights, config)
    while budget.left():
        set_learning_rate([adam], budget.factor())
        generator = budget.generator(config.seed)
        chosen = training[torch.randint(len(training), (config.batch,), generator=generator)]
        batch = [to_pixels(chosen.to(config.device)), torch.randn(latent_shape, generator=generator)]
        loss = gradients(loss_of, config.parts(batch))
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        budget.advance()
        progress.advance(loss=loss)
        if budget.every(minutes=4):
            checkpoint.save(budget.state())
            report(vae, held_out, config.folder / "vae.png")
    checkpoint.save(budget.state())
    budget.check_spent()
    vae.eval()
    if budget.steps:  # or the latents must stay what the UNet knows
        fold_scale(vae, to_pixels(training[:: max(1, len(training) // 2048)].to(config.device)))
    report(vae, held_out, config.folder / "vae.png")
    vae.save_pretrained(config.folder / "vae")


def fresh_vae(seed: int) -> Network:
    """Random weights, and little noise."""
    torch.manual_seed(seed)
    vae = make_vae()
    torch.nn.init.constant_(vae.quant_conv.bias[vae.config.latent_channels :], QUIET)
    return vae


def to_pixels(pictures: Tensor) -> Tensor:
    """uint8 [n, h, w, 3] to float [n, 3, h, w] in -1..1."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(pixels: Tensor) -> Array:
    """The way back, clipped."""
    array: Array = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return array


def face_weights(size: int, extra: float) -> Tensor:
    """1 at the rim of a picture, 1 + extra in the middle of the face, with mean 1. [1, 1, size, size]"""
    down, across = np.mgrid[:size, :size] / size
    middle = np.exp(-(((across - 0.5) / 0.24) ** 2) - ((down - 0.5) / 0.26) ** 2)
    weights = torch.from_numpy(1 + extra * middle).float()[None, None]
    return weights / weights.mean()


def vae_loss(vae: Network, weights: Tensor, config: VaeConfig, part: tuple[Tensor, ...]) -> Tensor:
    """Reconstruction from a noisy latent, and a little pressure towards a normal distribution."""
    pixels, noise = part
    with quick_products(pixels.device):
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
    kl: Tensor = posterior.kl().mean()
    return reconstruction_loss(decoded.float(), pixels, weights, config) + config.kl_weight * kl


def reconstruction_loss(decoded: Tensor, target: Tensor, weights: Tensor, config: VaeConfig) -> Tensor:
    """|e| + squares + |gradient of e| along both axes, e the error of each pixel."""
    error = (decoded - target) * weights
    across, down = error.diff(dim=-1).abs().mean(), error.diff(dim=-2).abs().mean()
    squares = (functional.mse_loss(decoded, target, reduction="none") * weights).mean()
    return error.abs().mean() + config.square_weight * squares + config.edge_weight * (across + down)


@torch.no_grad()
def fold_scale(vae: Network, pixels: Tensor) -> None:
    """Give each latent channel mean 0 and deviation 1, exactly, by rescaling the two 1 x 1 convolutions beside it.

    So the latents fit a diffusion model as they are, and `scaling_factor` is 1.
    """
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in torch.split(pixels, 64)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    last, first = vae.quant_conv, vae.post_quant_conv
    first.bias += (first.weight[:, :, 0, 0] * mean).sum(1)
    first.weight *= deviation[None, :, None, None]
    last.bias[:channels] = (last.bias[:channels] - mean) / deviation
    last.weight[:channels] /= deviation[:, None, None, None]
    last.bias[channels:] -= 2 * deviation.log()  # these channels are log-variances


@torch.no_grad()
def report(vae: Network, held_out: Tensor, sheet: Path) -> float:
    """Print the peak signal-to-noise ratio of the round trip, and write a sheet of pairs."""
    vae.eval()
    decoded = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in torch.split(held_out, 64)])
    vae.train()
    psnr = 10 * math.log10(4 / functional.mse_loss(decoded.clamp(-1, 1), held_out).item())
    say(f"vae  round trip of {len(held_out)} unseen pictures  {psnr:.2f} dB")
    rows = zip(to_pictures(held_out[:24]), to_pictures(decoded[:24]), strict=True)
    save_sheet([Image.fromarray(picture) for pair in rows for picture in pair], sheet, columns=12)
    return psnr


if __name__ == "__main__":
    main(VaeConfig())
