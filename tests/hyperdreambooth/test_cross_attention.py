import pytest
import torch
from torch import Tensor

from hyperdreambooth.attach import attach
from hyperdreambooth.config import SampleConfig
from hyperdreambooth.cross_attention import Remembered, keys_and_values_once
from hyperdreambooth.diffusion import BaseModel, encode_tokens, sample, tokenize
from tests.hyperdreambooth.conftest import random_lidb

PROMPTS = ["a photo of a [V] face", "a pencil sketch of a person", "a face"]


@torch.no_grad()
def answer(base_model: BaseModel, embeddings: Tensor, *, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    latents = torch.randn(len(embeddings), *base_model.latent_shape, generator=generator, dtype=torch.float64)
    predicted: Tensor = base_model.unet(latents, torch.tensor(step), encoder_hidden_states=embeddings).sample
    return predicted


@torch.no_grad()
def test_remembered_keys_and_values_give_the_same_answers(base_model_double: BaseModel) -> None:
    base_model, texts = base_model_double, torch.tensor([2, 0, 0, 1])
    lidb = random_lidb(base_model, subjects=3, rank=2)
    with attach(base_model, lidb, subject_of_sample=torch.arange(3)):
        embeddings = encode_tokens(base_model, tokenize(base_model, PROMPTS))
        with base_model.seating.seated(texts):
            plain = [answer(base_model, embeddings[texts], step=step) for step in (10, 500)]
        with (
            keys_and_values_once(base_model.unet, embeddings, torch.arange(3), base_model.seating) as seat,
            base_model.seating.seated(texts),
        ):
            seat(texts)
            remembered = [answer(base_model, embeddings[texts], step=step) for step in (10, 500)]
    torch.testing.assert_close(remembered, plain, rtol=1e-12, atol=1e-12)


def test_a_whole_drawing_projects_each_prompt_once(base_model: BaseModel) -> None:
    seen: dict[str, list[int]] = {}
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, output, name=name: seen.setdefault(name, []).append(len(inputs[0]))
        )
        for name, module in base_model.unet.named_modules()
        if name.endswith(("attn2.to_k", "attn2.to_v"))
    ]
    try:
        sample(base_model, PROMPTS, seeds=[1, 2, 3], config=SampleConfig(steps=4, guidance=2.0))
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen) == len(hooks) > 0
    assert all(rows == [len(PROMPTS) + 1] for rows in seen.values())  # and the empty prompt


def test_projections_are_back_after_an_exception(base_model: BaseModel) -> None:
    before = dict(base_model.unet.named_modules())
    attentions = sum(name.endswith("attn2") for name in before)

    def interrupted() -> None:
        texts = torch.zeros(1, 12, 16), torch.zeros(1, dtype=torch.long)
        with keys_and_values_once(base_model.unet, *texts, base_model.seating):
            assert sum(isinstance(module, Remembered) for module in base_model.unet.modules()) == 2 * attentions > 0
            raise InterruptedError

    with pytest.raises(InterruptedError):
        interrupted()
    assert dict(base_model.unet.named_modules()) == before
