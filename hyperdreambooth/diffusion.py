"""The base model: a Stable Diffusion folder in diffusers' own format, frozen. Load it, encode, sample."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import snapshot_download
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel

from hyperdreambooth.config import SampleConfig
from hyperdreambooth.cross_attention import Prompted, keys_and_values_once
from hyperdreambooth.denoise import OnStep, Strand, denoise
from hyperdreambooth.errors import UnsuitableSize
from hyperdreambooth.seating import Seating
from hyperdreambooth.targets import TargetLayer, target_layers

NETWORKS = ("text_encoder", "unet", "vae")
PICTURES_AT_ONCE = 8  # through the autoencoder, which needs the most memory of all
MAX_ENLARGEMENT = 2  # of a side, beyond the base model's own: larger pictures repeat themselves


@dataclass(frozen=True, eq=False)
class BaseModel:
    """VAE, UNet, text encoder, tokenizer and scheduler: any Stable Diffusion 1.x or 2.x, ours included."""

    name: str  # the folder's name or the hub id
    weights_hash: str
    vae: Any
    unet: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    seating: Seating = field(default_factory=Seating)  # who is in the batch that the networks see

    @cached_property
    def targets(self) -> dict[str, TargetLayer]:
        """The target layers by our names, looked up once."""
        return target_layers(self.unet, self.text_encoder)

    @property
    def device(self) -> torch.device:
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self._weight.dtype

    @property
    def _weight(self) -> Tensor:
        """Any weight: diffusers' own `dtype` walks through all of them, which a training step would feel."""
        weight: Tensor = self.unet.conv_in.weight
        return weight

    @property
    def resolution(self) -> int:
        """Side of its pictures, in pixels."""
        return int(self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        side = self.unet.config.sample_size
        return (self.unet.config.in_channels, side, side)


def base_model_folder(folder_or_hub_id: str) -> Path:
    """A folder as it is; anything else is fetched from the hub (or found in its cache)."""
    if Path(folder_or_hub_id).is_dir():
        return Path(folder_or_hub_id)
    networks = (*NETWORKS, "hypernetwork", "safety_checker")  # "*.json" takes in `feature_extractor/`
    patterns = ["*.json", "*.txt", *(f"{network}/*.safetensors" for network in networks)]
    return Path(snapshot_download(folder_or_hub_id, allow_patterns=patterns))


def load_base_model(folder_or_hub_id: str, *, device: torch.device, dtype: torch.dtype) -> BaseModel:
    """Load and freeze."""
    folder = base_model_folder(folder_or_hub_id)
    classes: dict[str, Any] = {"vae": AutoencoderKL, "unet": UNet2DConditionModel, "text_encoder": CLIPTextModel}
    networks = {
        name: network.from_pretrained(folder, subfolder=name, torch_dtype=dtype) for name, network in classes.items()
    }
    scheduler_class = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["_class_name"]
    return BaseModel(
        name=folder.resolve().name if Path(folder_or_hub_id).is_dir() else folder_or_hub_id,
        weights_hash=hash_weights(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder, subfolder="tokenizer"),
        scheduler=getattr(diffusers, scheduler_class).from_pretrained(folder, subfolder="scheduler"),
        **{name: network.to(device).eval().requires_grad_(False) for name, network in networks.items()},
    )


def hash_weights(folder: Path) -> str:
    """sha256 over the files that a delta depends on: an adapter fits these weights and no others."""
    digest = hashlib.sha256()
    for network in NETWORKS:
        for path in sorted((folder / network).glob("*.safetensors")):
            digest.update(f"{network}/{path.name}\n".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def tokenize(base_model: BaseModel, prompts: Sequence[str]) -> Tensor:
    """Token ids [B, T]; what is too long is cut off."""
    length = min(base_model.tokenizer.model_max_length, base_model.text_encoder.config.max_position_embeddings)
    tokens = base_model.tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return torch.as_tensor(tokens.input_ids).to(base_model.device)


def encode_tokens(base_model: BaseModel, tokens: Tensor) -> Tensor:
    """Prompt embeddings [B, T, d]: what the UNet's cross-attention reads."""
    embeddings: Tensor = base_model.text_encoder(input_ids=tokens).last_hidden_state
    return embeddings


@torch.no_grad()
def encode_images(base_model: BaseModel, images: Sequence[Image.Image]) -> Tensor:
    """Latents [B, c, h, w] of square pictures, scaled as the UNet expects them. The mean: no noise, so no seed."""
    pixels = image_tensor(images, size=base_model.resolution).to(base_model.device, base_model.dtype)
    few_each = torch.split(pixels, PICTURES_AT_ONCE)
    latents = torch.cat([base_model.vae.encode(few).latent_dist.mode() for few in few_each])
    return latents * float(base_model.vae.config.scaling_factor)


@torch.no_grad()
def decode_latents(base_model: BaseModel, latents: Tensor) -> list[Image.Image]:
    """Latents to pictures."""
    scaled = latents / base_model.vae.config.scaling_factor

    def of(part: slice) -> Tensor:
        few_each = torch.split(scaled[part], PICTURES_AT_ONCE)
        pixels = torch.cat([base_model.vae.decode(few).sample.float() for few in few_each])
        return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu()

    arrays = torch.cat(base_model.seating.in_parts(of, len(latents), latents.device)).numpy()
    return [Image.fromarray(array) for array in arrays]


def image_tensor(images: Sequence[Image.Image], *, size: int) -> Tensor:
    """Pictures as [B, 3, size, size] in -1..1."""
    resized = [image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def sample(
    base_model: BaseModel,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    config: SampleConfig | Sequence[SampleConfig],
    on_step: OnStep | None = None,
) -> list[Image.Image]:
    """Draw one picture for each prompt and seed. Configs may differ: pictures of one size share a denoising loop."""
    configs = [config] * len(prompts) if isinstance(config, SampleConfig) else list(config)
    assert len(prompts) == len(seeds) == len(configs), (len(prompts), len(seeds), len(configs))
    shapes = [latent_shape(base_model, own) for own in configs]
    loops = [_strands(base_model, shape, shapes, seeds, configs) for shape in dict.fromkeys(shapes)]
    lengths = [max(len(strand.timesteps) for strand in strands) for strands in loops]
    report = on_step or (lambda step, total: None)
    images: dict[int, Image.Image] = {}
    with _prompted(base_model, [own.negative_prompt for own in configs], prompts) as denoiser:
        for strands, done in zip(loops, accumulate(lengths, initial=0), strict=False):
            denoise(denoiser, strands, partial(_report_step, report, done, sum(lengths)))
    for strands in loops:
        places = [place for strand in strands for place in strand.places]
        latents = torch.cat([strand.latents for strand in strands])
        images |= zip(places, decode_latents(base_model, latents), strict=True)
    return [images[place] for place in range(len(prompts))]


def _report_step(report: OnStep, done: int, total: int, step: int, _: int) -> None:
    """A step of one loop as a step of all."""
    report(done + step, total)


def latent_shape(base_model: BaseModel, config: SampleConfig) -> tuple[int, int, int]:
    """Channels, height and width of a picture's latents; UnsuitableSize where the base model can't draw it."""
    channels, *_ = base_model.latent_shape
    factor = base_model.resolution // base_model.latent_shape[-1]
    sides = (config.height or base_model.resolution, config.width or base_model.resolution)
    if any(side % factor or not 0 < side <= MAX_ENLARGEMENT * base_model.resolution for side in sides):
        limit = MAX_ENLARGEMENT * base_model.resolution
        raise UnsuitableSize(f"width and height must be multiples of {factor} and at most {limit} pixels")
    return (channels, sides[0] // factor, sides[1] // factor)


def _strands(
    base_model: BaseModel,
    shape: tuple[int, int, int],
    shapes: Sequence[tuple[int, int, int]],
    seeds: Sequence[int],
    configs: Sequence[SampleConfig],
) -> list[Strand]:
    """The pictures of one size, by their number of steps, each with noise of its own."""
    by_steps: dict[int, list[int]] = {}
    for place, own in enumerate(shapes):
        if own == shape:
            by_steps.setdefault(configs[place].steps, []).append(place)
    strands = []
    for places in by_steps.values():
        generators = [torch.Generator().manual_seed(seeds[place]) for place in places]
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        noise = noise.to(base_model.device, base_model.dtype)
        own_configs = [configs[place] for place in places]
        strands.append(Strand.begin(base_model.scheduler, noise, places, generators, own_configs))
    return strands


@contextmanager
def _prompted(base_model: BaseModel, negatives: Sequence[str], prompts: Sequence[str]) -> Iterator[Prompted]:
    """The text encoder, and whatever reads its answers alone, runs once. Equal texts are one: in the text encoder but
    for subjects whose deltas are in it, in keys and values but for those whose deltas are there.
    """
    seating, rows = base_model.seating, base_model.seating.rows
    assert not seating.in_turn, "of whom is each picture? `attach` several subjects with `subject_of_sample`"
    subjects = None if rows is None else rows.repeat(len(prompts) // len(rows))
    whose = [0] * len(prompts) if subjects is None or not seating.own_keys else subjects.tolist()
    pairs = [*zip(whose, negatives, strict=True), *zip(whose, prompts, strict=True)]
    places = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
    texts = torch.tensor([places[pair] for pair in pairs], device=base_model.device).view(2, -1)
    owners = None if rows is None else torch.tensor([subject for subject, _ in places], device=base_model.device)
    readers = [(subject if seating.own_texts else 0, text) for subject, text in places]
    encoded = {reader: place for place, reader in enumerate(dict.fromkeys(readers))}
    answered = torch.tensor([encoded[reader] for reader in readers], device=base_model.device)
    with seating.seated(owners):
        answers = encode_tokens(base_model, tokenize(base_model, [text for _, text in encoded]))
        with keys_and_values_once(base_model.unet, answers, answered, seating) as seat:
            yield Prompted(base_model.unet, seating, subjects, answers[answered], texts, seat)
