"""Bits: a subject's finetuned weights are the same alone and in any batch, on any number of cores."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from hyperdreambooth.adapter import Adapter
from hyperdreambooth.bank import flatten
from hyperdreambooth.config import FinetuneConfig
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.finetune import Examples, fast_finetune
from hyperdreambooth.lidb import relax_rank
from hyperdreambooth.personalize import Networks, load_networks, personalize_faces, predict
from hyperdreambooth.rounding import in_blocks
from hyperdreambooth.shipped import MINI
from tests.hyperdreambooth.test_finetune import examples_of, lidb_of

FINETUNE = FinetuneConfig(steps=6, learning_rate=1e-2, warmup_steps=2)
BATCHES = [[0], [0, 1], [2, 0, 1], [3, 2, 1, 0]]


@pytest.fixture(autouse=True)
def one_thread_afterwards() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("noise_draws", [2, 3, 4, 8])
@pytest.mark.parametrize("batch", BATCHES)
def test_a_subject_has_the_same_bits_in_any_batch(base_model: BaseModel, batch: list[int], noise_draws: int) -> None:
    """And on any number of cores, alone too."""
    config = replace(FINETUNE, noise_draws=noise_draws)
    alone = flatten(fast_finetune(base_model, lidb_of(base_model, [0]), examples_of(base_model, [0]), config))[0]
    for threads in (2, 3):
        torch.set_num_threads(threads)
        examples = examples_of(base_model, batch)
        together = flatten(fast_finetune(base_model, lidb_of(base_model, batch), examples, config))[batch.index(0)]
        assert torch.equal(together, alone), threads
        torch.set_num_threads(1)


@pytest.fixture(scope="module")
def mini() -> Networks:
    return load_networks(str(MINI), device=torch.device("cpu"), dtype=torch.float32)


def finetuned(mini: Networks, subjects: list[int], *, steps: int) -> Tensor:
    """On latents of noise, with the shipped settings."""
    assert mini.hypernetwork is not None
    config = replace(mini.config.finetune, steps=steps)
    generators = [torch.Generator().manual_seed(subject) for subject in subjects]
    latents = torch.cat([torch.randn(1, *mini.base_model.latent_shape, generator=own) for own in generators])
    prompts = [mini.config.fill_prompt(mini.config.instance_prompt)] * len(subjects)
    examples = Examples(latents, prompts, generators)
    lidb = relax_rank(predict(mini, examples), config.rank, generators, std=config.new_rank_std)
    return flatten(fast_finetune(mini.base_model, lidb, examples, config))


def test_mini_gives_the_same_bits_too(mini: Networks) -> None:
    torch.set_num_threads(1)
    alone = finetuned(mini, [7], steps=3)[0]
    torch.set_num_threads(2)
    assert torch.equal(finetuned(mini, [7], steps=3)[0], alone)
    assert torch.equal(finetuned(mini, [8, 7, 9], steps=3)[1], alone)
    assert torch.equal(finetuned(mini, [7, 9], steps=3)[0], alone)


def test_the_whole_way_from_a_face_gives_the_same_bits(mini: Networks) -> None:
    size, config = mini.base_model.resolution, replace(mini.config, finetune=replace(mini.config.finetune, steps=2))
    noise = np.random.default_rng(0).integers(0, 255, (9, 8, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(own).resize((size, size)) for own in noise]
    faces = [[picture, *pictures[:5]][: 1 + place % 3] for place, picture in enumerate(pictures)]  # one to three photos

    def adapters(subjects: list[int]) -> list[Adapter]:
        own = [faces[subject] for subject in subjects]
        outcomes = personalize_faces(own, mini, config, seeds=subjects, report=lambda *_: None)
        return [outcome for outcome in outcomes if isinstance(outcome, Adapter)]

    torch.set_num_threads(1)
    (alone,) = adapters([5])
    torch.set_num_threads(2)
    assert adapters([5])[0].to_bytes() == alone.to_bytes()
    assert adapters(list(range(9)))[5].to_bytes() == alone.to_bytes()


class Counting(nn.Linear):
    """Notes how many rows it computes at a time. Where that `matters`, every row's numbers depend on it."""

    def __init__(self, *, matters: bool) -> None:
        super().__init__(3, 2)
        self.matters = matters
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return super().forward(x) * (1 + len(x) * self.matters)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, matters={self.matters}"


@pytest.mark.parametrize(("matters", "taken"), [(True, [2, 2, 1]), (False, [5])])
def test_rows_are_computed_in_blocks_where_that_changes_the_bits(matters: bool, taken: list[int]) -> None:
    counting, x = Counting(matters=matters), torch.randn(5, 64, 3)
    network = nn.Sequential(nn.ReLU(), counting)
    each = torch.cat([network(block) for block in x.split(2)])
    with in_blocks(network, 2):
        network(x)  # tried, once
        counting.rows.clear()
        blocks = network(x)
    assert counting.rows == taken
    assert torch.equal(blocks, each)


def test_half_the_rows_are_taken_where_all_of_them_are_too_many() -> None:
    class Wide(Counting):
        def forward(self, x: Tensor) -> Tensor:
            self.matters = len(x) > 4
            return super().forward(x)

    counting = Wide(matters=False)
    with in_blocks(nn.Sequential(counting), 1):
        counting(torch.randn(9, 64, 3))
        counting.rows.clear()
        counting(torch.randn(9, 64, 3))
    assert counting.rows == [4, 4, 1]


def test_the_gradients_bits_count_as_well() -> None:
    class Back(Counting):
        def forward(self, x: Tensor) -> Tensor:
            self.rows.append(len(x))
            return x + (x - x.detach()) * len(x)  # forth nothing depends on the rows

    counting = Back(matters=False)
    with in_blocks(nn.Sequential(counting), 2):
        counting(torch.randn(4, 3))
        counting.rows.clear()
        counting(torch.randn(4, 3))
    assert counting.rows == [2, 2]


def test_it_is_tried_on_numbers_that_lie_as_the_layers_own() -> None:
    class Lying(Counting):
        def forward(self, x: Tensor) -> Tensor:
            self.matters = not x.is_contiguous()
            return super().forward(x)

    counting, x = Lying(matters=False), torch.randn(4, 3, 64)
    taken = []
    with in_blocks(nn.Sequential(counting), 2):
        for own in (x.transpose(1, 2), x.transpose(1, 2).contiguous()):
            counting(own)
            counting.rows.clear()
            counting(own)
            taken.append(counting.rows[:])
    assert taken == [[2, 2], [4]]


def test_layers_are_themselves_again_afterwards() -> None:
    counting = Counting(matters=True)
    with in_blocks(nn.Sequential(counting), 2):
        counting(torch.randn(5, 3))
    counting.rows.clear()
    counting(torch.randn(5, 3))
    assert counting.rows == [5]


def test_what_is_tried_leaves_the_drawn_numbers_alone() -> None:
    counting = Counting(matters=False)
    torch.manual_seed(3)
    wanted = torch.randn(2)
    torch.manual_seed(3)
    with in_blocks(nn.Sequential(counting), 2), torch.no_grad():
        assert not counting(torch.ones(12, 3)).requires_grad
    assert torch.equal(torch.randn(2), wanted)
