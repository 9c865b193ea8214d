"""Train the UNet and the text encoder of `mini`: `python -m hyperdreambooth.recipes.train_base`.

Latents are computed once; each picture has several true captions. The exported weights are a moving average.
Resumable.
"""

import copy
import json
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from hyperdreambooth.acceleration import quick_products
from hyperdreambooth.config import SampleConfig
from hyperdreambooth.diffusion import sample
from hyperdreambooth.faces import FaceDetector
from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.captions import random_caption
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.styles import Style
from hyperdreambooth.recipes.architecture import (
    PERSONALIZATION,
    TIMESTEPS,
    AutoencoderKL,
    Mini,
    Network,
    export,
    load_mini,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
)
from hyperdreambooth.recipes.checkpoints import Checkpoint
from hyperdreambooth.recipes.optimizers import Muon, hidden_matrices
from hyperdreambooth.recipes.parallel import Gradients
from hyperdreambooth.recipes.pictures import PICTURES, STYLES, load_pictures, varied_context, varied_person
from hyperdreambooth.recipes.progress import Progress, say
from hyperdreambooth.recipes.schedule import set_learning_rate
from hyperdreambooth.recipes.sheets import save_sheet
from hyperdreambooth.recipes.stage import StageConfig
from hyperdreambooth.recipes.train_vae import to_pixels

JUNK_SHARE = 0.08  # captions that get a word nobody knows, so that unknown words do no harm
SUBJECTS = ("a young woman", "an old man", f"a {PERSONALIZATION.subject}")
PHOTOS_TO_CHECK = 24


@dataclass(frozen=True, kw_only=True)
class BaseConfig(StageConfig):
    """Steps are for as many pictures as the shipped weights have seen, the last 3 300 steps as here, those before
    of 48 and by AdamW.
    """

    steps: int = 10_975
    batch: int = 64
    learning_rate: float = 7e-4
    warmup_steps: int = 100
    flat_share: float = 0.4
    weight_decay: float = 1e-3
    drop_caption: float = 0.1  # for classifier-free guidance
    captions_each: int = 3
    average_steps: int = 4  # the moving average is taken so often: copying all weights costs time
    average_decay: float = 0.992


def main(config: BaseConfig) -> None:
    """Train, export to `base/` in the work folder now and then, and at the end."""
    captions = cached_captions(config)
    mini = untrained(config, captions)
    latents = cached_latents(mini.vae, config)
    tokens = torch.stack([_tokens(mini, column) for column in zip(*captions, strict=True)])
    nothing = _tokens(mini, [""])
    averaged = copy.deepcopy(mini)
    parameters = [*mini.unet.parameters(), *mini.text_encoder.parameters()]
    optimizers = optimizers_of(mini, parameters, config)
    networks = [mini.unet, mini.text_encoder, averaged.unet, averaged.text_encoder]
    checkpoint = Checkpoint(config.folder / "base.pt", networks=networks, optimizers=optimizers)
    budget = config.budget()
    budget.resume(checkpoint.load())
    gradients = Gradients(parameters, threads=config.threads)
    loss_of = partial(velocity_loss, mini, make_scheduler())
    progress = Progress("base", total=config.steps, every=30, done=budget.steps)
    smooth = float("nan")
    while budget.left():
        set_learning_rate(optimizers, budget.factor())
        generator = budget.generator(config.seed)
        batch = draw_batch(latents, tokens[budget.steps % len(tokens)], nothing, config, generator)
        loss = gradients(loss_of, config.parts(batch))
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
        budget.advance()
        progress.advance(loss=smooth)
        if budget.steps % config.average_steps == 0:
            update_average(networks[2:], networks[:2], min(config.average_decay, budget.steps / (budget.steps + 200)))
        if budget.every(minutes=9):
            checkpoint.save(budget.state())
            report(averaged, config.folder)
    checkpoint.save(budget.state())
    report(averaged, config.folder)
    budget.check_spent()


def untrained(config: BaseConfig, captions: list[list[str]]) -> Mini:
    """The trained autoencoder, and the rest as it is before the first step."""
    vae: Network = AutoencoderKL.from_pretrained(config.folder / "vae").eval().requires_grad_(False)
    if config.start:
        mini = replace(load_mini(config.start), vae=vae)
    else:
        tokenizer = stored_tokenizer(captions, config.folder / "tokenizer")
        torch.manual_seed(config.seed)
        mini = Mini(vae=vae, unet=make_unet(), text_encoder=make_text_encoder(tokenizer), tokenizer=tokenizer)
    channels, expected = vae.config.latent_channels, mini.unet.config.in_channels
    if channels != expected:
        raise ValueError(
            f"{config.folder / 'vae'} has {channels} latent channels, the UNet {expected}: use another work folder"
        )
    return mini.to(config.device)


def optimizers_of(mini: Mini, parameters: Iterable[nn.Parameter], config: BaseConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices within the networks, AdamW for what they read and write, biases and norms."""
    matrices = hidden_matrices([mini.unet, mini.text_encoder], but=[mini.unet.conv_in, mini.unet.conv_out])
    chosen = {id(matrix) for matrix in matrices}
    others = [parameter for parameter in parameters if id(parameter) not in chosen]
    rate, decay = config.learning_rate, config.weight_decay
    return [
        Muon(matrices, learning_rate=rate, weight_decay=decay, threads=config.threads),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=decay, fused=True),
    ]


def stored_tokenizer(captions: list[list[str]], folder: Path) -> CLIPTokenizer:
    """Learned once: what a checkpoint has learned about tokens is about these."""
    if not folder.exists():
        make_tokenizer(caption for row in captions for caption in row).save_pretrained(folder)
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer


def cached_latents(vae: Network, config: BaseConfig) -> Tensor:
    """Latents of all pictures, in their order. [n, c, h, w]"""
    path = config.folder / PICTURES / "latents.npy"
    if not path.exists():
        pictures, _ = load_pictures(config.pictures)
        say(f"base  encoding {len(pictures)} pictures")
        np.save(path, _encode(vae, torch.from_numpy(pictures), config).numpy())
    return torch.from_numpy(np.load(path)).float()


def _encode(vae: Network, pictures: Tensor, config: BaseConfig) -> Tensor:
    def encoded(part: Tensor) -> Tensor:
        torch.set_num_threads(1)
        with torch.no_grad(), quick_products(config.device):
            latents: Tensor = vae.encode(to_pixels(part.to(config.device))).latent_dist.mean
            return latents.half().cpu()

    with ThreadPoolExecutor(config.threads) as pool:
        return torch.cat(list(pool.map(encoded, torch.split(pictures, 32))))


def cached_captions(config: BaseConfig) -> list[list[str]]:
    """Several captions for every picture, in the order of `load_pictures`, without drawing anything."""
    path = config.folder / PICTURES / "captions.json"
    if not path.exists():
        head = Head.load(cache=config.folder / "cache")
        _, records = load_pictures(config.pictures)
        path.write_text(json.dumps([captions_of(head, record, count=config.captions_each) for record in records]))
    captions: list[list[str]] = json.loads(path.read_text())
    return captions


def captions_of(head: Head, record: Array, *, count: int) -> list[str]:
    """True captions of one picture."""
    seed, view, style = (int(number) for number in record)
    rng = np.random.default_rng([seed, view, style, 2])
    identity, context = varied_person(head, seed), varied_context(seed, view)
    captions = [random_caption(identity, context, STYLES[style], rng) for _ in range(count)]
    return [with_junk(caption, rng) if rng.random() < JUNK_SHARE else caption for caption in captions]


def with_junk(caption: str, rng: np.random.Generator) -> str:
    """The caption with an invented word somewhere."""
    word = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(2, 9)))
    words = caption.split()
    words.insert(int(rng.integers(len(words) + 1)), word)
    return " ".join(words)


def draw_batch(
    latents: Tensor, tokens: Tensor, nothing: Tensor, config: BaseConfig, generator: torch.Generator
) -> list[Tensor]:
    """Latents, prompts (some emptied), noise and timesteps; these are spread evenly over the batch."""
    count = config.batch
    chosen = torch.randint(len(latents), (count,), generator=generator)
    dropped = torch.rand(count, generator=generator) < config.drop_caption
    prompts = torch.where(dropped[:, None], nothing, tokens[chosen])
    noise = torch.randn((count, *latents.shape[1:]), generator=generator)
    places = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    return [latents[chosen], prompts, noise, (places * TIMESTEPS).long()]


def velocity_loss(mini: Mini, scheduler: Network, batch: tuple[Tensor, ...]) -> Tensor:
    """|v̂ - v|², v = α ε - σ z (Salimans and Ho 2022)."""
    latents, prompts, noise, timesteps = batch
    with quick_products(latents.device):
        embeddings = mini.text_encoder(input_ids=prompts).last_hidden_state
        noisy = scheduler.add_noise(latents, noise, timesteps)
        predicted = mini.unet(noisy, timesteps, encoder_hidden_states=embeddings).sample
    return functional.mse_loss(predicted.float(), scheduler.get_velocity(latents, noise, timesteps))


@torch.no_grad()
def update_average(averages: Iterable[nn.Module], networks: Iterable[nn.Module], decay: float) -> None:
    """average = decay average + (1 - decay) now, of every weight."""
    for average, network in zip(averages, networks, strict=True):
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


def report(mini: Mini, folder: Path) -> float:
    """Export, draw a sheet of all styles, and print in how many photos the detector finds a face."""
    export(mini, folder / "base")
    config = PERSONALIZATION.sample
    prompts = [f"a {style} of {subject}" for subject in SUBJECTS for style in Style]
    save_sheet(_draw(mini, prompts, config), folder / "base.png", columns=len(Style))
    photos = _draw(mini, [f"a photo of {subject}" for subject in SUBJECTS] * (PHOTOS_TO_CHECK // len(SUBJECTS)), config)
    save_sheet(photos, folder / "photos.png", columns=8)
    detector = FaceDetector(threads=1)
    share = sum(bool(detector(photo)) for photo in photos) / len(photos)
    say(f"base  a face found in {share:.0%} of {len(photos)} photos")
    return share


def _draw(mini: Mini, prompts: list[str], config: SampleConfig) -> list[Image.Image]:
    with quick_products(mini.base_model.device):
        return sample(mini.base_model, prompts, seeds=range(len(prompts)), config=config)


def _tokens(mini: Mini, captions: Iterable[str]) -> Tensor:
    tokens = mini.tokenizer(
        list(captions), padding="max_length", max_length=mini.tokenizer.model_max_length, truncation=True
    )
    return torch.tensor(tokens.input_ids)


if __name__ == "__main__":
    main(BaseConfig())
