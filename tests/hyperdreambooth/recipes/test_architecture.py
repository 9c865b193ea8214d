"""The folder that `mini` is shipped in opens everywhere it should, and its tokenizer knows its words."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from hyperdreambooth.config import load_personalize_config
from hyperdreambooth.diffusion import load_base_model
from hyperdreambooth.recipes.architecture import (
    LATENT_CHANNELS,
    PERSONALIZATION,
    PROMPT_TOKENS,
    Mini,
    export,
    load_mini,
    make_mini,
    make_tokenizer,
)
from hyperdreambooth.shipped import MINI

CAPTIONS = ["a photo of a [V] face", "a pencil sketch of an old woman with long grey hair"]


@pytest.fixture(scope="module")
def mini() -> Mini:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_mini(CAPTIONS)


@pytest.fixture(scope="module")
def folder(mini: Mini, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mini")
    export(mini, path)
    return path


def test_known_words_and_the_identifier_are_one_token_each() -> None:
    tokenizer = make_tokenizer(CAPTIONS)
    assert len(tokenizer(CAPTIONS[0]).input_ids) == len(CAPTIONS[0].split()) + 2
    assert len(tokenizer(CAPTIONS[1].upper()).input_ids) == len(CAPTIONS[1].split()) + 2


def test_invented_words_take_no_merges_from_words_that_captions_share() -> None:
    rng = np.random.default_rng(0)
    invented = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(3000)]
    tokenizer = make_tokenizer([*CAPTIONS * 500, *(f"{CAPTIONS[0]} {word}" for word in invented)])
    for caption in CAPTIONS:
        assert len(tokenizer(caption).input_ids) == len(caption.split()) + 2


def test_the_same_captions_make_the_same_tokenizer() -> None:
    rng = np.random.default_rng(0)
    rare = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(2000)]  # all pairs equally rare
    first, *others = (make_tokenizer([*CAPTIONS, *rare]).backend_tokenizer.to_str() for _ in range(4))
    assert all(other == first for other in others)


def test_a_folder_is_trained_further_in_full_precision(mini: Mini, folder: Path) -> None:
    loaded = load_mini(folder)
    for network, before in ((loaded.unet, mini.unet), (loaded.text_encoder, mini.text_encoder), (loaded.vae, mini.vae)):
        for weight, rounded in zip(network.parameters(), before.parameters(), strict=True):
            assert weight.requires_grad
            torch.testing.assert_close(weight, rounded.half().float(), rtol=0, atol=0)
    assert loaded.tokenizer(CAPTIONS).input_ids == mini.tokenizer(CAPTIONS).input_ids


def test_unknown_words_become_letters_and_never_the_unknown_token() -> None:
    tokenizer = make_tokenizer(CAPTIONS)
    tokens = tokenizer("zebra, 8k! café", add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in tokens
    assert "".join(str(tokenizer.decode(tokens)).split()) == "zebra,8k!café"


def test_a_prompt_that_is_too_long_is_cut(folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    assert tokenizer.model_max_length == PROMPT_TOKENS
    assert len(tokenizer("word " * 100, truncation=True).input_ids) == PROMPT_TOKENS


def test_the_saved_tokenizer_gives_the_same_tokens(mini: Mini, folder: Path) -> None:
    saved = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    assert saved(CAPTIONS).input_ids == mini.tokenizer(CAPTIONS).input_ids


def test_the_folder_opens_as_a_base_model_with_its_wishes(mini: Mini, folder: Path) -> None:
    base_model = load_base_model(str(folder), device=torch.device("cpu"), dtype=torch.float32)
    assert base_model.resolution == 64
    assert load_personalize_config(folder) == PERSONALIZATION
    rounded = mini.unet.conv_in.weight.half().float()
    torch.testing.assert_close(base_model.unet.conv_in.weight, rounded, rtol=0, atol=0)
    assert mini.unet.conv_in.weight.dtype == torch.float32


def test_diffusers_draws_with_the_folder(folder: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a photo of a face", num_inference_steps=2, height=64, width=64).images[0]
    assert picture.size == (64, 64)


@pytest.mark.parametrize("is_shipped", [False, True])
def test_no_file_is_larger_than_sixteen_mebibytes(folder: Path, *, is_shipped: bool) -> None:
    written = MINI if is_shipped else folder
    sizes = [path.stat().st_size for path in written.rglob("*") if path.is_file()]
    assert max(sizes) <= 16 * 2**20
    assert sum(sizes) < 60e6


def test_the_shipped_mini_has_the_architecture_and_whole_words() -> None:
    mini = load_mini(MINI)
    assert mini.vae.config.latent_channels == mini.unet.config.in_channels == LATENT_CHANNELS
    caption = "a pencil sketch of an old woman with long grey hair and glasses on a blue background"
    assert len(mini.tokenizer(caption).input_ids) == len(caption.split()) + 2
