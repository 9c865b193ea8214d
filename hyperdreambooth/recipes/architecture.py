"""The networks of `mini`, untrained, and the folder that holds them: a small Stable Diffusion in diffusers' format.

Widths are multiples of 64 where arithmetic is spent, because bfloat16 products are fast only there on CPUs.
"""

import copy
import json
import string
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeAlias

import diffusers
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from hyperdreambooth.config import FinetuneConfig, LiDBConfig, PersonalizeConfig, SampleConfig, to_json
from hyperdreambooth.diffusion import BaseModel, load_base_model
from hyperdreambooth.layers import LayerKind
from hyperdreambooth.portraits.captions import CLASS_NOUN, IDENTIFIER

# What diffusers makes: mypy sees untyped classes there, without the methods of a module.
Network: TypeAlias = Any
AutoencoderKL: Network = diffusers.AutoencoderKL
UNet2DConditionModel: Network = diffusers.UNet2DConditionModel
DDIMScheduler: Network = diffusers.DDIMScheduler

PICTURE_SIZE = 64
LATENT_CHANNELS = 32
DOWNSCALE = 8
TEXT_WIDTH = 128
PROMPT_TOKENS = 32
TIMESTEPS = 1000
VOCABULARY = 1024
START, END = "<|startoftext|>", "<|endoftext|>"
LARGEST_FILE = "15MB"

FINETUNE = FinetuneConfig(rank=8, learning_rate=0.1, noise_draws=8, views=1, background_weight=1.0)
PERSONALIZATION = PersonalizeConfig(
    identifier=IDENTIFIER,
    class_noun=CLASS_NOUN,
    instance_prompt="a photo of a {subject}",
    min_face_pixels=24,
    lidb=LiDBConfig(layers=(LayerKind.CONVOLUTION,), a=92, b=78),
    finetune=replace(FINETUNE, learning_rate=0.08, noise_draws=4),  # from a prediction there is less way to go
    finetune_from_start=replace(FINETUNE, steps=100),
    sample=SampleConfig(steps=25, guidance=2.5),
)


def make_vae() -> Network:
    """f = 8, thin at full resolution: sixteen channels there cost a quarter of thirty-two."""
    widths = (16, 32, 64, 128)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=PICTURE_SIZE,
        scaling_factor=1.0,  # the recipe folds the scale of each channel into the weights instead
        mid_block_add_attention=False,
    )


def make_unet() -> Network:
    """Attention at both resolutions, 8 x 8 and 4 x 4."""
    return UNet2DConditionModel(
        sample_size=PICTURE_SIZE // DOWNSCALE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(128, 256),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # diffusers reads this as the number of heads
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=3 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=PROMPT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_scheduler() -> Network:
    """v-prediction with zero terminal SNR (Lin et al. 2023): sampling starts from what training calls pure noise."""
    return DDIMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def make_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """Byte-pair merges learned from captions: words that are common there are one token each, others fall into pieces.

    Learned from every occurrence: of words counted once each, those invented as junk are the most, and take the merges.
    """
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [word for caption in captions for word in caption.replace(IDENTIFIER, " ").lower().split()]
    # Numbered in advance, or chance numbers the letters that end a word, and that decides between equally good merges.
    endings = [f"{letter}</w>" for letter in sorted({*string.ascii_lowercase, *"".join(set(words))})]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        show_progress=False,
        special_tokens=endings,
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
    )
    learner.train_from_iterator([*words, *string.ascii_lowercase], trainer)
    learned = json.loads(learner.to_str())["model"]
    tokens = dict.fromkeys((START, END, *letters, *(f"{letter}</w>" for letter in letters)))
    tokens |= dict.fromkeys(learned["vocab"])
    merges: Any = [tuple(merge) for merge in learned["merges"]]  # the signature says str, the code takes pairs
    tokenizer = CLIPTokenizer(
        vocab={token: place for place, token in enumerate(tokens)},
        merges=merges,
        model_max_length=PROMPT_TOKENS,
    )
    tokenizer.add_tokens([IDENTIFIER])
    return tokenizer


@dataclass(frozen=True, kw_only=True)
class Mini:
    """The trainable parts, in one hand."""

    vae: Network
    unet: Network
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer

    def to(self, device: torch.device) -> Self:
        """Moved, not copied."""
        networks: tuple[Network, ...] = (self.vae, self.unet, self.text_encoder)
        for network in networks:
            network.to(device)
        return self

    @property
    def base_model(self) -> BaseModel:
        """As the algorithm sees it: for sample sheets during training."""
        return BaseModel(
            name="mini",
            weights_hash="",
            vae=self.vae,
            unet=self.unet,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            scheduler=make_scheduler(),
        )


def make_mini(captions: Iterable[str]) -> Mini:
    """Everything untrained. Draws from torch's global generator, which a recipe seeds."""
    tokenizer = make_tokenizer(captions)
    return Mini(vae=make_vae(), unet=make_unet(), text_encoder=make_text_encoder(tokenizer), tokenizer=tokenizer)


def load_mini(folder: Path) -> Mini:
    """An exported folder, to be trained further: in full precision, as all training is."""
    loaded = load_base_model(str(folder), device=torch.device("cpu"), dtype=torch.float32)
    networks = [network.train().requires_grad_(True) for network in (loaded.vae, loaded.unet, loaded.text_encoder)]
    vae, unet, text_encoder = networks
    return Mini(vae=vae, unet=unet, text_encoder=text_encoder, tokenizer=loaded.tokenizer)


def export(mini: Mini, folder: Path) -> None:
    """Write the folder that `load_base_model` and diffusers' own pipeline open: half precision, files below 16 MiB."""
    networks: dict[str, Network] = {"vae": mini.vae, "unet": mini.unet, "text_encoder": mini.text_encoder}
    for name, network in networks.items():
        export_network(network, folder / name)
    mini.tokenizer.save_pretrained(folder / "tokenizer")
    make_scheduler().save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(_model_index(), indent=2) + "\n")
    (folder / "personalization.json").write_text(json.dumps(json.loads(to_json(PERSONALIZATION)), indent=2) + "\n")


def export_network(network: Network, folder: Path) -> None:
    """Half precision, in files below 16 MiB, in place of what was there."""
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    # Rounded in a copy: the network in hand may still be in training.
    copy.deepcopy(network).cpu().half().save_pretrained(folder, max_shard_size=LARGEST_FILE)
    config = json.loads((folder / "config.json").read_text())
    config.pop("_name_or_path", None)  # where it lay while it was made concerns nobody
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _model_index() -> dict[str, object]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
