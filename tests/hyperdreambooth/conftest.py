"""A complete Stable Diffusion of a few thousand weights, random, built in a second; and a real photograph."""

from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from hyperdreambooth.attach import aux_basis
from hyperdreambooth.config import FinetuneConfig, HypernetworkConfig, LiDBConfig, PersonalizeConfig, to_json
from hyperdreambooth.diffusion import BaseModel, load_base_model
from hyperdreambooth.faces import FaceDetector
from hyperdreambooth.hypernetwork import FOLDER, Hypernetwork, save_hypernetwork
from hyperdreambooth.layers import LayerKind
from hyperdreambooth.lidb import LiDB, shared_start
from hyperdreambooth.personalize import Networks, load_networks

CPU = torch.device("cpu")
LIDB = LiDBConfig(a=12, b=6, layers=tuple(LayerKind))
WORDS = ("a", "photo", "of", "pencil", "sketch", "face", "person", "[v]")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The machine is shared, and sums must not depend on how many threads made them."""
    torch.set_num_threads(1)


def write_tiny_folder(folder: Path, *, prediction_type: str) -> None:
    """A folder in diffusers' format; the weights are those of this seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=8,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=16,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(WORDS) + 3,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=12,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        )
    vocabulary = ["<|startoftext|>", "<|endoftext|>", "<|unknown|>", *(f"{word}</w>" for word in WORDS)]
    tokenizer = CLIPTokenizer(
        vocab={word: index for index, word in enumerate(vocabulary)},
        merges=[],
        unk_token="<|unknown|>",
        model_max_length=12,
    )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=prediction_type == "v_prediction",
        timestep_spacing="trailing",
    )
    parts: dict[str, Any] = {
        "unet": unet,
        "vae": vae,
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "scheduler": scheduler,
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    finetune = FinetuneConfig(steps=3, noise_draws=2)
    config = PersonalizeConfig(
        identifier="[V]",
        class_noun="face",
        min_face_pixels=32,
        lidb=LIDB,
        finetune=finetune,
        finetune_from_start=finetune,
    )
    (folder / "personalization.json").write_text(to_json(config))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base model with an untrained hypernetwork."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_folder(folder, prediction_type="v_prediction")
    base_model = load_base_model(str(folder), device=CPU, dtype=torch.float32)
    config = HypernetworkConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1)
    hypernetwork = Hypernetwork(config, aux_basis(base_model, LIDB), base_model.latent_shape)
    hypernetwork.reset_parameters(torch.Generator().manual_seed(0))
    # Large enough that two faces get different weights: an untrained one would hardly tell them apart.
    hypernetwork.decoder.heads.data.mul_(60)
    hypernetwork.encoder.patches.weight.data.mul_(20)
    save_hypernetwork(hypernetwork, folder / FOLDER)
    return folder


@pytest.fixture(scope="session")
def tiny_networks(tiny_folder: Path) -> Networks:
    return load_networks(str(tiny_folder), device=CPU, dtype=torch.float32)


@pytest.fixture(scope="session")
def base_model(tiny_networks: Networks) -> BaseModel:
    return tiny_networks.base_model


@pytest.fixture(scope="session")
def base_model_double(tiny_folder: Path) -> BaseModel:
    """The same weights in float64, where rounding cannot hide a coupling between subjects."""
    return load_base_model(str(tiny_folder), device=CPU, dtype=torch.float64)


@pytest.fixture(scope="session")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """Eileen Collins, NASA, public domain: one sharp face, 90 by 114 pixels."""
    return Image.fromarray(skimage.data.astronaut())


def random_lidb(
    base_model: BaseModel, *, subjects: int, rank: int = 1, seed: int = 0, config: LiDBConfig = LIDB
) -> LiDB:
    """Train matrices large enough to be seen in the output."""
    start = shared_start(aux_basis(base_model, config), subjects=subjects)
    generator = torch.Generator().manual_seed(seed)
    shapes = ((subjects, rank, train.shape[-1]) for train in (start.a_train, start.b_train))
    a_train, b_train = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return LiDB(start.basis, a_train.to(start.a_train), b_train.to(start.b_train))
