"""Claims that hold for every method: it learns, it draws, and it leaves no trace in the base model."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from PIL import Image
from torch import Tensor

from hyperdreambooth.baselines.budgets import (
    CUSTOM_DIFFUSION,
    DREAMBOOTH,
    LORA,
    SVDIFF,
    TEXTUAL_INVERSION,
    Budget,
)
from hyperdreambooth.baselines.custom_diffusion import custom_diffusion
from hyperdreambooth.baselines.dreambooth import dreambooth
from hyperdreambooth.baselines.identifier import identifier_id
from hyperdreambooth.baselines.lidb import hyperdreambooth, lidb_alone, refinement_passes
from hyperdreambooth.baselines.lora import Lora, lora
from hyperdreambooth.baselines.personalized import Personalized, draw
from hyperdreambooth.baselines.relaxed_lora import relaxed_lora
from hyperdreambooth.baselines.svdiff import spectra, svdiff
from hyperdreambooth.baselines.swap import weights_of
from hyperdreambooth.baselines.textual_inversion import textual_inversion
from hyperdreambooth.baselines.training import ClassImages, Example, draw_class_images
from hyperdreambooth.config import FinetuneConfig, PersonalizeConfig, SampleConfig
from hyperdreambooth.diffusion import BaseModel, encode_images, encode_tokens, sample, tokenize
from hyperdreambooth.finetune import Examples, fast_finetune
from hyperdreambooth.losses import denoising_loss
from hyperdreambooth.personalize import Networks, examples_of, predict

SAMPLING = SampleConfig(steps=2, guidance=2.0)
FINETUNE = FinetuneConfig(steps=20, noise_draws=2, learning_rate=2e-2)
PROMPT = "a photo of a {subject}"


def quick(budget: Budget) -> Budget:
    """Few iterations at a rate at which a random model of this size learns in them."""
    return replace(budget, iterations=20, learning_rate=5e-3, prior_images=min(2, budget.prior_images))


def _example(networks: Networks, face: Image.Image, seed: int = 0) -> Example:
    generator = torch.Generator().manual_seed(seed)
    return Example(encode_images(networks.base_model, [face]), networks.config.instance_prompt, generator)


def _prior(networks: Networks) -> ClassImages:
    return draw_class_images(networks.base_model, networks.config, count=2, seed=7, sampling=SAMPLING)


def _one_token(networks: Networks) -> PersonalizeConfig:
    """The tiny tokenizer merges nothing: of all identifiers a single letter alone is one token."""
    return replace(networks.config, identifier="a")


def _examples(networks: Networks, face: Image.Image) -> Examples:
    return examples_of(networks.base_model, [[face]], networks.config, FINETUNE, seeds=[0])


def _relaxed_lora(networks: Networks, face: Image.Image) -> Personalized:
    examples = _examples(networks, face)
    prediction = predict(networks, examples)
    subject = networks.config.subject
    return relaxed_lora(networks.base_model, prediction, examples, FINETUNE, subject=subject)


METHODS: dict[str, Callable[[Networks, Image.Image], Personalized]] = {
    "dreambooth": lambda n, f: dreambooth(n.base_model, n.config, _example(n, f), quick(DREAMBOOTH), prior=_prior(n)),
    "lora": lambda n, f: lora(n.base_model, n.config, _example(n, f), quick(LORA), rank=2),
    "textual_inversion": lambda n, f: textual_inversion(
        n.base_model, _one_token(n), _example(n, f), quick(TEXTUAL_INVERSION)
    ),
    "custom_diffusion": lambda n, f: custom_diffusion(
        n.base_model, _one_token(n), _example(n, f), quick(CUSTOM_DIFFUSION), prior=_prior(n)
    ),
    "svdiff": lambda n, f: svdiff(
        n.base_model, n.config, _example(n, f), quick(SVDIFF), prior=_prior(n), spectra=spectra(n.base_model)
    ),
    "hyperdreambooth": lambda n, f: hyperdreambooth(n, f, FINETUNE, seed=0),
    "hypernetwork_only": lambda n, f: hyperdreambooth(n, f, replace(FINETUNE, steps=0, rank=1), seed=0),
    "lidb": lambda n, f: lidb_alone(n, f, FINETUNE, seed=0),
    "relaxed_lora": _relaxed_lora,
}


class Tuned(NamedTuple):
    name: str
    personalized: Personalized
    weights_before: dict[str, Tensor]
    modules_before: list[type]
    picture_before: bytes


@pytest.fixture(scope="module")
def face(photo: Image.Image) -> Image.Image:
    return photo.crop((170, 60, 280, 170)).resize((16, 16))


@pytest.fixture(scope="module", params=METHODS)
def tuned(request: pytest.FixtureRequest, tiny_networks: Networks, face: Image.Image) -> Tuned:
    """Each method, trained once; and the base model as it was before."""
    base_model = tiny_networks.base_model
    weights = {name: weight.clone() for name, weight in weights_of(base_model).items()}
    before = modules(base_model), nobodys_picture(base_model)
    return Tuned(request.param, METHODS[request.param](tiny_networks, face), weights, *before)


def modules(base_model: BaseModel) -> list[type]:
    return [type(module) for network in (base_model.unet, base_model.text_encoder) for module in network.modules()]


def nobodys_picture(base_model: BaseModel) -> bytes:
    return sample(base_model, ["a photo of a face"], seeds=[1], config=SAMPLING)[0].tobytes()


@torch.no_grad()
def example_loss(base_model: BaseModel, face: Image.Image, subject: str) -> float:
    """The denoising loss on the face itself."""
    return fixed_loss(base_model, encode_images(base_model, [face]), PROMPT.replace("{subject}", subject))


@torch.no_grad()
def fixed_loss(base_model: BaseModel, latents: Tensor, prompt: str) -> float:
    """The denoising loss on one picture, over fixed noise."""
    latents = latents.expand(32, -1, -1, -1)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(99))
    embeddings = encode_tokens(base_model, tokenize(base_model, [prompt] * 32))
    timesteps = torch.arange(15, 1000, 31)[:32]
    return float(denoising_loss(base_model, latents, embeddings, timesteps=timesteps, noise=noise).mean())


def test_the_base_model_is_bit_identical_afterwards(tuned: Tuned, base_model: BaseModel) -> None:
    draw(tuned.personalized, base_model, [PROMPT], seeds=[1], config=SAMPLING)
    with pytest.raises(RuntimeError, match="midway"), tuned.personalized.attached(base_model):
        raise RuntimeError("midway")
    after = weights_of(base_model)
    assert list(after) == list(tuned.weights_before)
    assert all(torch.equal(after[name], weight) for name, weight in tuned.weights_before.items())
    assert modules(base_model) == tuned.modules_before
    assert nobodys_picture(base_model) == tuned.picture_before


def test_training_lowers_the_loss_on_the_photo(tuned: Tuned, base_model: BaseModel, face: Image.Image) -> None:
    """Of the prediction alone, whose hypernetwork is random here, only that it is another loss."""
    subject = tuned.personalized.subject
    with tuned.personalized.attached(base_model):
        trained = example_loss(base_model, face, subject)
    before = example_loss(base_model, face, subject)
    assert trained < before if tuned.name != "hypernetwork_only" else trained != before


def test_prior_preservation_keeps_the_class(tiny_networks: Networks, face: Image.Image) -> None:
    """After forty iterations class images, here nothing like the photo, are denoised better than by who saw none."""
    base_model = tiny_networks.base_model
    latents = 3 * torch.randn(1, *base_model.latent_shape, generator=torch.Generator().manual_seed(3))
    prior = ClassImages(latents, "a photo of a face")

    def class_loss(prior_weight: float) -> float:
        budget = replace(quick(DREAMBOOTH), iterations=40, prior_weight=prior_weight)
        trained = dreambooth(base_model, tiny_networks.config, _example(tiny_networks, face), budget, prior=prior)
        with trained.attached(base_model):
            return fixed_loss(base_model, prior.latents, prior.prompt)

    assert class_loss(1.0) < 0.9 * class_loss(0.0)


def test_a_prompt_draws_the_subject_and_not_the_base_models_picture(tuned: Tuned, base_model: BaseModel) -> None:
    prompts = ["a photo of a {subject}", "a pencil sketch of a {subject}"]
    own = draw(tuned.personalized, base_model, prompts, seeds=[1, 1], config=SAMPLING)
    filled = [prompt.replace("{subject}", tuned.personalized.subject) for prompt in prompts]
    plain = sample(base_model, filled, seeds=[1, 1], config=SAMPLING)
    assert [image.size for image in own] == [(16, 16)] * 2
    assert all(one.tobytes() != other.tobytes() for one, other in zip(own, plain, strict=True))


def test_the_same_seed_trains_the_same_weights(tiny_networks: Networks, face: Image.Image) -> None:
    one, other = (METHODS["lora"](tiny_networks, face) for _ in range(2))
    assert isinstance(one, Lora)
    assert isinstance(other, Lora)
    assert all(torch.equal(one.numbers[name], other.numbers[name]) for name in one.numbers)


def test_a_relaxed_lora_starts_as_the_prediction(tiny_networks: Networks, face: Image.Image) -> None:
    prediction = predict(tiny_networks, _examples(tiny_networks, face))
    examples = Examples(torch.zeros(1, 4, 8, 8), ["a face"], [torch.Generator().manual_seed(0)])
    fresh = relaxed_lora(
        tiny_networks.base_model, prediction, examples, FinetuneConfig(steps=0, rank=3), subject="[V] face"
    )
    for name, (up, down) in prediction.factors().items():
        own_up, own_down = fresh.factors()[name]
        assert own_up.shape[1] == 4
        torch.testing.assert_close(own_up.mT @ own_down, up.mT @ down)


def test_a_relaxed_loras_photos_take_turns_as_in_fast_finetuning(
    tiny_networks: Networks, face: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, networks = replace(FINETUNE, steps=3, views=2), tiny_networks
    looked_at: list[Tensor] = []

    def watched(examples: Examples, *, draws: int, step: int) -> Tensor:
        looked_at.append(chosen(examples, draws=draws, step=step))
        return looked_at[-1]

    chosen = Examples.chosen
    monkeypatch.setattr(Examples, "chosen", watched)
    examples = examples_of(networks.base_model, [[face]], networks.config, config, seeds=[0])
    prediction = predict(networks, examples)
    relaxed_lora(networks.base_model, prediction, examples, config, subject=networks.config.subject)
    in_lora = [turn.tolist() for turn in looked_at]
    looked_at.clear()
    fast_finetune(networks.base_model, prediction, examples, config)
    assert in_lora == [turn.tolist() for turn in looked_at]
    assert in_lora[0] != in_lora[1]


def test_an_identifier_of_several_tokens_is_refused(base_model: BaseModel) -> None:
    with pytest.raises(ValueError, match="choose an identifier that is one"):
        identifier_id(base_model, "photo sketch")


def test_other_passes_are_undone(tiny_networks: Networks, face: Image.Image) -> None:
    trained = predict(tiny_networks, _examples(tiny_networks, face)).a_train
    with refinement_passes(tiny_networks, 1) as networks:
        assert not torch.equal(predict(networks, _examples(networks, face)).a_train, trained)
    assert torch.equal(predict(tiny_networks, _examples(tiny_networks, face)).a_train, trained)
