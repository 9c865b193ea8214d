"""Compiled on the CPU by backends that trace as the GPU's does, and generate no code."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo

from hyperdreambooth.acceleration import choose_attention, compile_blocks, quick_dtype, quick_products
from hyperdreambooth.attach import attach
from hyperdreambooth.bank import flatten
from hyperdreambooth.config import FinetuneConfig, SampleConfig
from hyperdreambooth.diffusion import BaseModel, load_base_model, sample
from hyperdreambooth.finetune import fast_finetune
from hyperdreambooth.merge import merged
from tests.hyperdreambooth.conftest import CPU, random_lidb
from tests.hyperdreambooth.test_finetune import examples_of, lidb_of

CONFIG = SampleConfig(steps=2, guidance=2.0)
PROMPTS = ["a photo of a [V] face", "a pencil sketch of a [V] person"]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with torch._dynamo.config.patch(recompile_limit=8):
        yield
    torch._dynamo.reset()


@pytest.fixture
def base_model(tiny_folder: Path) -> BaseModel:
    """To be compiled, so nobody else's."""
    return load_base_model(str(tiny_folder), device=CPU, dtype=torch.float32)


def graphs() -> int:
    assert not torch._dynamo.utils.counters["graph_break"]
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def pictures(base_model: BaseModel) -> np.ndarray:
    return np.stack([np.asarray(image, int) for image in sample(base_model, PROMPTS, seeds=[1, 2], config=CONFIG)])


def drawn(base_model: BaseModel, seed: int) -> np.ndarray:
    """Two people in one batch."""
    lidb = random_lidb(base_model, subjects=2, rank=2, seed=seed)
    with attach(base_model, lidb, subject_of_sample=torch.tensor([1, 0])):
        return pictures(base_model)


def drawn_merged(base_model: BaseModel, seed: int) -> np.ndarray:
    with merged(base_model, random_lidb(base_model, subjects=1, rank=2, seed=seed)):
        return pictures(base_model)


@pytest.mark.parametrize("draw", [drawn, drawn_merged])
def test_other_subjects_are_drawn_by_the_same_graphs(
    base_model: BaseModel, draw: Callable[[BaseModel, int], np.ndarray]
) -> None:
    expected = [draw(base_model, seed) for seed in (1, 2, 3)]
    compile_blocks(base_model, backend="aot_eager")
    first = draw(base_model, 1)
    made = graphs()
    assert made > 0
    found = [first, draw(base_model, 2), draw(base_model, 3)]
    assert graphs() == made
    assert np.abs(np.stack(found) - np.stack(expected)).max() <= 2  # of 255
    assert np.abs(found[0] - found[1]).max() > 8


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's tracer looks at it itself
def test_other_subjects_are_finetuned_by_the_same_graphs(base_model: BaseModel) -> None:
    config = FinetuneConfig(steps=2, noise_draws=2, learning_rate=1e-2, warmup_steps=2)

    def finetuned(subjects: list[int]) -> torch.Tensor:
        return flatten(
            fast_finetune(base_model, lidb_of(base_model, subjects), examples_of(base_model, subjects), config)
        )

    expected = [finetuned([0, 1]), finetuned([2, 3])]
    compile_blocks(base_model, backend="aot_eager")
    first = finetuned([0, 1])
    made = graphs()
    assert made > 0
    second = finetuned([2, 3])
    assert graphs() == made
    for found, wanted in zip((first, second), expected, strict=True):
        assert torch.linalg.vector_norm(found - wanted) <= 1e-3 * torch.linalg.vector_norm(wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_attention_is_the_same_attention(tiny_folder: Path, dtype: torch.dtype) -> None:
    """In float32 the fused kernel stays: there it is the faster one."""
    plain, fused = (load_base_model(str(tiny_folder), device=CPU, dtype=dtype) for _ in range(2))
    choose_attention(plain)

    def predicted(base_model: BaseModel) -> tuple[torch.Tensor, bool]:
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(2, *base_model.latent_shape, generator=generator).to(dtype)
        texts = torch.randn(2, 8, base_model.unet.config.cross_attention_dim, generator=generator).to(dtype)
        with torch.no_grad(), torch.profiler.profile() as run:
            answer = base_model.unet(latents, torch.tensor([1, 500]), encoder_hidden_states=texts).sample
        return answer, any("flash" in event.key for event in run.key_averages())

    (as_products, products_are_fused), (in_one, in_one_is_fused) = predicted(plain), predicted(fused)
    assert in_one_is_fused
    assert products_are_fused is (dtype is torch.float32)
    torch.testing.assert_close(as_products, in_one, rtol=0.02, atol=0.02)


def test_plain_attention_draws_the_same_pictures_of_several_people(tiny_folder: Path) -> None:
    plain, fused = (load_base_model(str(tiny_folder), device=CPU, dtype=torch.bfloat16) for _ in range(2))
    choose_attention(plain)

    def drawn(base_model: BaseModel) -> np.ndarray:
        people = random_lidb(base_model, subjects=2, rank=2)
        with attach(base_model, people, subject_of_sample=torch.tensor([0, 1])):
            pictures = sample(base_model, PROMPTS, seeds=[1, 2], config=CONFIG)
        return np.stack([np.asarray(picture, np.int16) for picture in pictures])

    found, wanted = drawn(plain), drawn(fused)
    assert np.abs(found - wanted).mean() < 0.1 * np.abs(wanted[0] - wanted[1]).mean()


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
    ],
)
def test_bfloat16_is_for_processors_that_multiply_in_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert quick_dtype(CPU) is dtype
    with quick_products(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype
    assert quick_dtype(torch.device("cuda")) is torch.bfloat16


def test_what_an_older_torch_cannot_tell_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert quick_dtype(CPU) is torch.float32
