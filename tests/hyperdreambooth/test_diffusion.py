from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hyperdreambooth.config import SampleConfig
from hyperdreambooth.diffusion import (
    BaseModel,
    decode_latents,
    encode_images,
    encode_tokens,
    hash_weights,
    image_tensor,
    load_base_model,
    sample,
    tokenize,
)
from hyperdreambooth.errors import UnsuitableSize
from tests.hyperdreambooth.conftest import CPU, write_tiny_folder

CONFIG = SampleConfig(steps=4, guidance=3.0, negative_prompt="a person")
PROMPTS = ["a photo of a face", "a pencil sketch of a person"]


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image, np.int16) for image in images])


def test_sampling_is_that_of_diffusers_own_pipeline(base_model: BaseModel) -> None:
    pipeline: Any = diffusers.StableDiffusionPipeline(
        vae=base_model.vae,
        unet=base_model.unet,
        text_encoder=base_model.text_encoder,
        tokenizer=base_model.tokenizer,
        scheduler=base_model.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    latents = torch.randn(1, *base_model.latent_shape, generator=torch.Generator().manual_seed(5))
    theirs = pipeline(
        PROMPTS[0], latents=latents, num_inference_steps=4, guidance_scale=3.0, negative_prompt="a person"
    ).images
    ours = sample(base_model, PROMPTS[:1], seeds=[5], config=CONFIG)
    assert np.abs(pixels(ours) - pixels(theirs)).max() <= 1  # of 255


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "PNDMScheduler", "EulerAncestralDiscreteScheduler"])
def test_any_scheduler_draws_and_a_picture_does_not_depend_on_its_neighbours(tmp_path: Path, scheduler: str) -> None:
    write_tiny_folder(tmp_path, prediction_type="epsilon")
    model = load_base_model(str(tmp_path), device=CPU, dtype=torch.float32)
    model = replace(model, scheduler=getattr(diffusers, scheduler).from_config(model.scheduler.config))
    together = sample(model, PROMPTS, seeds=[1, 2], config=CONFIG)
    alone = sample(model, PROMPTS[1:], seeds=[2], config=CONFIG)
    assert np.abs(pixels(together)[1] - pixels(alone)[0]).max() <= 1
    assert np.abs(pixels(together)[0] - pixels(together)[1]).max() > 1


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "PNDMScheduler", "EulerAncestralDiscreteScheduler"])
def test_pictures_of_any_steps_guidance_and_size_share_a_loop(base_model: BaseModel, scheduler: str) -> None:
    options = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {}  # as Stable Diffusion has it
    scheduler_class = getattr(diffusers, scheduler)
    model = replace(base_model, scheduler=scheduler_class.from_config(base_model.scheduler.config, **options))
    configs = [
        SampleConfig(steps=6, guidance=3.0),
        SampleConfig(steps=3, guidance=1.5, negative_prompt="a person"),
        SampleConfig(steps=4, guidance=3.0, width=24),
        SampleConfig(steps=6, guidance=7.0, negative_prompt="a photo"),
        SampleConfig(steps=2, guidance=0.0, width=24),
    ]
    prompts, seeds = [PROMPTS[number % 2] for number in range(5)], range(5)
    steps: list[tuple[int, int]] = []
    together = sample(model, prompts, seeds=seeds, config=configs, on_step=lambda *step: steps.append(step))
    for place, config in enumerate(configs):
        (alone,) = sample(model, prompts[place : place + 1], seeds=seeds[place : place + 1], config=config)
        assert together[place].size == alone.size
        assert np.abs(pixels([together[place]]) - pixels([alone])).max() <= 2  # of 255
    # Two loops, one of each size; a scheduler may take a step more than it was asked for.
    assert [step for step, _ in steps] == list(range(1, steps[-1][1] + 1))
    assert len(steps) in (6 + 4, 7 + 5)


@pytest.mark.parametrize(("width", "height"), [(32, 16), (8, 32), (None, 18), (22, 30)])
def test_a_picture_may_have_any_size_that_the_autoencoder_knows(
    base_model: BaseModel, width: int | None, height: int | None
) -> None:
    config = replace(CONFIG, width=width, height=height)
    (image,) = sample(base_model, PROMPTS[:1], seeds=[1], config=config)
    assert image.size == (width or 16, height or 16)


@pytest.mark.parametrize(("width", "height"), [(34, None), (17, 16), (16, 33), (-2, 16), (16, -16)])
def test_a_size_that_cannot_be_drawn_is_a_typed_error(
    base_model: BaseModel, width: int | None, height: int | None
) -> None:
    with pytest.raises(UnsuitableSize, match="multiples of 2 and at most 32 pixels"):
        sample(base_model, PROMPTS[:1], seeds=[1], config=replace(CONFIG, width=width, height=height))


def test_the_same_seed_draws_the_same_picture_and_another_seed_another(base_model: BaseModel) -> None:
    one, same, other = (sample(base_model, PROMPTS[:1], seeds=[seed], config=CONFIG)[0] for seed in (1, 1, 2))
    assert one.tobytes() == same.tobytes() != other.tobytes()


def test_each_step_is_told(base_model: BaseModel) -> None:
    steps: list[tuple[int, int]] = []
    sample(base_model, PROMPTS, seeds=[1, 2], config=CONFIG, on_step=lambda step, total: steps.append((step, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_what_a_step_raises_stops_the_drawing(base_model: BaseModel) -> None:
    def cancelled(step: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sample(base_model, PROMPTS, seeds=[1, 2], config=CONFIG, on_step=cancelled)


def test_pictures_and_latents_have_the_models_own_shapes(base_model: BaseModel) -> None:
    images = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "white")]
    latents = encode_images(base_model, images)
    assert latents.shape == (3, *base_model.latent_shape)
    assert torch.equal(latents, encode_images(base_model, images))
    assert [image.size for image in decode_latents(base_model, latents)] == [(base_model.resolution,) * 2] * 3


def test_the_autoencoder_sees_few_pictures_at_once(base_model: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counted(call: Callable[[Tensor], object], batch: Tensor) -> object:
        seen.append(len(batch))
        return call(batch)

    for name in ("encode", "decode"):
        monkeypatch.setattr(base_model.vae, name, partial(counted, getattr(base_model.vae, name)))
    images = [Image.new("RGB", (16, 16), (10 * place, 90, 200)) for place in range(19)]
    latents = encode_images(base_model, images)
    assert seen == [8, 8, 3]
    torch.testing.assert_close(latents[17:18], encode_images(base_model, images[17:18]))
    decode_latents(base_model, latents)
    assert max(seen) == 8


def test_an_image_becomes_numbers_between_minus_one_and_one() -> None:
    tensor = image_tensor([Image.new("RGB", (4, 4), (0, 255, 51))], size=4)
    torch.testing.assert_close(tensor[0, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))


def test_a_prompt_that_is_too_long_is_cut(base_model: BaseModel) -> None:
    tokens = tokenize(base_model, ["a photo " * 100])
    assert tokens.shape == (1, 12)
    assert encode_tokens(base_model, tokens).shape == (1, 12, 16)


def test_the_hash_changes_with_the_weights_and_not_with_the_place(tmp_path: Path, tiny_folder: Path) -> None:
    write_tiny_folder(tmp_path / "again", prediction_type="v_prediction")
    assert hash_weights(tmp_path / "again") == hash_weights(tiny_folder)
    weights = tmp_path / "again" / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert hash_weights(tmp_path / "again") != hash_weights(tiny_folder)


def test_a_loaded_model_is_frozen(base_model: BaseModel) -> None:
    networks = (base_model.unet, base_model.text_encoder, base_model.vae)
    assert not any(parameter.requires_grad for network in networks for parameter in network.parameters())
    assert not any(network.training for network in networks)
