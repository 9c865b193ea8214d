"""The base model: a Stable Diffusion folder in diffusers' own format, frozen. Load it, encode, sample."""

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

OnStep = Callable[[int, int], object]  # step just done (from 1), steps in all
NETWORKS = ("text_encoder", "unet", "vae")
DECODED_AT_ONCE = 8  # decoding needs the most memory of all


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

    @property
    def device(self) -> torch.device:
        return torch.device(self.unet.device)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.unet.dtype
        return dtype

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
    patterns = ["*.json", "*.txt", *(f"{network}/*.safetensors" for network in (*NETWORKS, "hypernetwork"))]
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
    latents: Tensor = base_model.vae.encode(pixels).latent_dist.mode() * base_model.vae.config.scaling_factor
    return latents


@torch.no_grad()
def decode_latents(base_model: BaseModel, latents: Tensor) -> list[Image.Image]:
    """Latents to pictures."""
    images = []
    for part in (latents / base_model.vae.config.scaling_factor).split(DECODED_AT_ONCE):
        pixels = base_model.vae.decode(part).sample.float()
        pixels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        images += [Image.fromarray(array) for array in pixels]
    return images


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
    config: SampleConfig,
    on_step: OnStep | None = None,
) -> list[Image.Image]:
    """Draw one picture for each prompt and seed, with classifier-free guidance (Ho and Salimans 2022).

    ε = ε(negative) + guidance (ε(prompt) - ε(negative)), whatever the UNet predicts in ε's place.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.stack([torch.randn(base_model.latent_shape, generator=generator) for generator in generators])
    scheduler = type(base_model.scheduler).from_config(base_model.scheduler.config)
    scheduler.set_timesteps(config.steps, device=base_model.device)
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    step_arguments = {"generator": generators} if takes_generator else {}

    latents = noise.to(base_model.device, base_model.dtype) * scheduler.init_noise_sigma
    tokens = tokenize(base_model, [config.negative_prompt] * len(prompts) + list(prompts))
    embeddings = encode_tokens(base_model, tokens)
    for step, timestep in enumerate(scheduler.timesteps, start=1):
        doubled = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
        negative, positive = base_model.unet(doubled, timestep, encoder_hidden_states=embeddings).sample.chunk(2)
        predicted = negative + config.guidance * (positive - negative)
        latents = scheduler.step(predicted, timestep, latents, **step_arguments).prev_sample
        if on_step is not None:
            on_step(step, len(scheduler.timesteps))
    return decode_latents(base_model, latents)
