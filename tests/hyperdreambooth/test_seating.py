import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from hyperdreambooth import seating
from hyperdreambooth.attach import attach
from hyperdreambooth.bank import flatten
from hyperdreambooth.config import FinetuneConfig, SampleConfig
from hyperdreambooth.diffusion import BaseModel, sample
from hyperdreambooth.finetune import fast_finetune
from hyperdreambooth.layers import LayerKind
from hyperdreambooth.seating import EVERYBODY, Seating
from tests.hyperdreambooth.conftest import LIDB, random_lidb
from tests.hyperdreambooth.test_finetune import examples_of, lidb_of

CPU = torch.device("cpu")
FINETUNE = FinetuneConfig(steps=4, noise_draws=2, learning_rate=1e-2, warmup_steps=2)


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """And so many parts, for as small a batch as there is."""
    monkeypatch.setattr(seating, "ROWS_EACH", 1)
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("subjects", [[1], [0, 1], [2, 0, 1]])
@pytest.mark.parametrize("layers", [tuple(LayerKind), (LayerKind.CONVOLUTION,), (LayerKind.TEXT,)])
def test_threads_leave_finetuned_weights_as_they_are(
    base_model_double: BaseModel, three_threads: None, subjects: list[int], layers: tuple[LayerKind, ...]
) -> None:
    def finetuned() -> torch.Tensor:
        start = lidb_of(base_model_double, subjects, replace(LIDB, layers=layers))
        return flatten(fast_finetune(base_model_double, start, examples_of(base_model_double, subjects), FINETUNE))

    parted = finetuned()
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    whole = finetuned()
    assert torch.linalg.vector_norm(parted - whole) <= 1e-9 * torch.linalg.vector_norm(whole)


@pytest.mark.parametrize(("rows", "parts"), [(1, 1), (8, 1), (15, 1), (16, 2), (24, 3), (100, 3)])
def test_a_small_batch_is_not_cut(rows: int, parts: int) -> None:
    torch.set_num_threads(3)
    try:
        assert seating.parts_of(rows, CPU) == parts
        # Unless it is of subjects: threads within an operation would round two of them in another way than one.
        assert seating.parts_of(rows, CPU, together=2) == min(3, max(1, rows // 2))
    finally:
        torch.set_num_threads(1)


def test_threads_leave_pictures_as_they_are(base_model: BaseModel, three_threads: None) -> None:
    configs = [SampleConfig(steps=steps, guidance=2.0) for steps in (3, 2, 3, 4)]
    prompts = ["a photo of a [V] face", "a face", "a pencil sketch", "a photo"]

    def drawn() -> np.ndarray:
        lidb = random_lidb(base_model, subjects=3)
        with attach(base_model, lidb, subject_of_sample=torch.tensor([2, 0, 1, 0])):
            images = sample(base_model, prompts, seeds=range(4), config=configs)
        return np.stack([np.asarray(image, int) for image in images])

    parted = drawn()
    torch.set_num_threads(1)
    assert np.abs(parted - drawn()).max() <= 2  # of 255


@pytest.mark.parametrize(
    ("layers", "encoded"),
    [((LayerKind.CONVOLUTION,), 3), ((LayerKind.ATTENTION,), 3), ((LayerKind.TEXT,), 5)],
)
def test_people_share_a_text_unless_the_text_encoder_is_their_own(
    base_model: BaseModel, layers: tuple[LayerKind, ...], encoded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer, and that times the base weights of keys and values, though each adds deltas of its own to these. And
    each picture is what it is alone.
    """
    seen: list[int] = []
    projected: list[int] = []
    keys = {id(module.to_k.weight) for name, module in base_model.unet.named_modules() if name.endswith("attn2")}
    linear = torch.nn.functional.linear

    def counted(rows: torch.Tensor, weight: torch.Tensor, *bias: torch.Tensor | None) -> torch.Tensor:
        if id(weight) in keys:
            projected.append(len(rows))
        return linear(rows, weight, *bias)

    monkeypatch.setattr(torch.nn.functional, "linear", counted)
    network = base_model.text_encoder
    handle = network.register_forward_pre_hook(
        lambda module, arguments, named: seen.append(len(named.get("input_ids", arguments and arguments[0]))),
        with_kwargs=True,
    )
    lidb = random_lidb(base_model, subjects=2, config=replace(LIDB, layers=layers))
    prompts = ["a photo of a [V] face", "a photo of a [V] face", "a pencil sketch"]
    config = SampleConfig(steps=3, guidance=2.0)
    try:
        with attach(base_model, lidb, subject_of_sample=torch.tensor([1, 0, 1])):
            together = sample(base_model, prompts, seeds=[4, 4, 5], config=config)
        assert seen == [encoded]
        assert projected == [encoded] * len(keys)
        assert projected
    finally:
        handle.remove()
    assert together[0].tobytes() != together[1].tobytes()
    for picture, own, prompt, seed in zip(together, (1, 0, 1), prompts, (4, 4, 5), strict=True):
        with attach(base_model, lidb, subject_of_sample=torch.tensor([own])):
            (alone,) = sample(base_model, [prompt], seeds=[seed], config=config)
        assert np.abs(np.asarray(picture, int) - np.asarray(alone, int)).max() <= 1  # of 255


def test_parts_come_back_in_order_and_cover_the_batch(three_threads: None) -> None:
    places = Seating()
    answers = places.in_parts(lambda part: (list(range(8))[part], places.part == part), 8, CPU)
    assert answers == [([0, 1], True), ([2, 3, 4], True), ([5, 6, 7], True)]
    assert places.part == EVERYBODY
    assert places.in_parts(lambda part: part, 1, CPU) == [EVERYBODY]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_one_by_one_is_in_order_and_each_on_one_thread(three_threads: None, count: int) -> None:
    together = threading.Barrier(min(3, count), timeout=60)  # nobody passes who isn't there with the others

    def work(place: int) -> tuple[int, int]:
        if place in (0, count // 3, count * 2 // 3):
            together.wait()
        return place, torch.get_num_threads()

    assert Seating().one_by_one(work, count) == [(place, 1) for place in range(count)]
    assert torch.get_num_threads() == 3


def test_what_a_part_raises_is_raised_when_all_parts_have_ended(three_threads: None) -> None:
    ended: list[slice] = []

    def work(part: slice) -> None:
        ended.append(part)
        if part.start == 0:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Seating().in_parts(work, 3, CPU)
    assert len(ended) == 3
    assert torch.get_num_threads() == 3


def test_parts_know_whether_gradients_are_wanted(three_threads: None) -> None:
    with torch.no_grad():
        assert Seating().in_parts(lambda part: torch.is_grad_enabled(), 3, CPU) == [False] * 3
    assert Seating().in_parts(lambda part: torch.is_grad_enabled(), 3, CPU) == [True] * 3
