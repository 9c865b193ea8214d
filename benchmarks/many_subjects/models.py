"""What is measured: `mini`, any folder, or random weights in the shapes of Stable Diffusion 1.5."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.many_subjects.settings import Settings
from hyperdreambooth.attach import aux_basis
from hyperdreambooth.config import HypernetworkConfig, PersonalizeConfig
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.faces import FaceDetector
from hyperdreambooth.hypernetwork import Hypernetwork
from hyperdreambooth.personalize import Networks, load_networks
from hyperdreambooth.shipped import MINI

UNET: Any = UNet2DConditionModel  # diffusers' constructors carry no types
VAE: Any = AutoencoderKL
SCHEDULER: Any = DDIMScheduler
SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>", "<|unknown|>")


@dataclass(frozen=True)
class Shapes:
    """The configs of a Stable Diffusion's networks."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoder: Mapping[str, Any]


# As in the model's published config files; the UNet's other fields are diffusers' defaults.
SD15 = Shapes(
    unet={
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    vae={
        "sample_size": 512,
        "latent_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    },
    text_encoder={
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    },
)


def measured_networks(settings: Settings, *, dtype: torch.dtype) -> Networks:
    """The networks, with the run's own number of steps."""
    if settings.model == "sd15":
        networks = random_networks(SD15, device=settings.torch_device, dtype=dtype)
    else:
        folder = str(MINI) if settings.model == "mini" else settings.model
        networks = load_networks(folder, device=settings.torch_device, dtype=dtype)
    if dtype == torch.float64 and networks.hypernetwork is not None:
        networks.hypernetwork.double()
    return replace(networks, config=with_steps(networks.config, settings))


def with_steps(config: PersonalizeConfig, settings: Settings) -> PersonalizeConfig:
    """Fewer steps, draws or sampling steps, where they are asked for."""
    finetune = replace(
        config.finetune,
        steps=settings.steps or config.finetune.steps,
        noise_draws=settings.noise_draws or config.finetune.noise_draws,
    )
    sample = replace(config.sample, steps=settings.sample_steps or config.sample.steps)
    return replace(config, finetune=finetune, finetune_from_start=finetune, sample=sample)


def random_networks(shapes: Shapes, *, device: torch.device, dtype: torch.dtype) -> Networks:
    """All but the training: seconds and bytes don't depend on what the weights are."""
    base_model, config = random_base_model(shapes, device=device, dtype=dtype), PersonalizeConfig()
    basis = aux_basis(base_model, config.lidb)
    hypernetwork = Hypernetwork(HypernetworkConfig(), basis, base_model.latent_shape)
    hypernetwork.reset_parameters(torch.Generator().manual_seed(0))
    return Networks(
        base_model=base_model,
        basis=basis,
        face_detector=FaceDetector(),
        hypernetwork=hypernetwork.to(device).eval().requires_grad_(False),
        hypernetwork_hash="random",
        config=config,
    )


def random_base_model(shapes: Shapes, *, device: torch.device, dtype: torch.dtype) -> BaseModel:
    """The networks in these shapes, with the weights of one seed. On the meta device too, where they cost nothing."""
    with torch.random.fork_rng(), device:
        torch.manual_seed(0)
        parts: dict[str, Any] = {
            "unet": UNET(**shapes.unet),
            "vae": VAE(**shapes.vae),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**shapes.text_encoder)),
        }
    return BaseModel(
        name="random",
        weights_hash="random",
        tokenizer=letter_tokenizer(shapes.text_encoder["max_position_embeddings"]),
        scheduler=SCHEDULER(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        **{name: network.to(dtype=dtype).eval().requires_grad_(False) for name, network in parts.items()},
    )


def letter_tokenizer(length: int) -> CLIPTokenizer:
    """A token for each letter: the prompts fill about as much of the sequence as words do in CLIP's."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = [*SPECIAL_TOKENS, *letters, *(f"{letter}</w>" for letter in letters)]
    return CLIPTokenizer(
        vocab={word: index for index, word in enumerate(vocabulary)},
        merges=[],
        unk_token="<|unknown|>",  # noqa: S106 - a word of the vocabulary
        model_max_length=length,
    )
