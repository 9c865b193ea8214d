"""Blocks compiled to a GPU's own code; the CPU's tests (tests/hyperdreambooth/test_acceleration.py) trace alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo

from hyperdreambooth.acceleration import compile_blocks
from hyperdreambooth.attach import attach
from hyperdreambooth.config import SampleConfig
from hyperdreambooth.diffusion import BaseModel, load_base_model, sample
from tests.hyperdreambooth.conftest import random_lidb, write_tiny_folder

# Inductor recommends TF32, which these tests switch off.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")]

GPU = torch.device("cuda")
PROMPTS = ["a photo of a [V] face", "a pencil sketch of a [V] person"]


@pytest.fixture
def base_model(tmp_path: Path) -> Iterator[BaseModel]:
    """To be compiled, so nobody else's."""
    write_tiny_folder(tmp_path / "tiny", prediction_type="v_prediction")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield load_base_model(str(tmp_path / "tiny"), device=GPU, dtype=torch.float32)
    torch._dynamo.reset()


def drawn(base_model: BaseModel, seed: int) -> np.ndarray:
    lidb, config = random_lidb(base_model, subjects=2, rank=2, seed=seed), SampleConfig(steps=2, guidance=2.0)
    with attach(base_model, lidb, subject_of_sample=torch.tensor([1, 0], device=GPU)):
        return np.stack([np.asarray(image, int) for image in sample(base_model, PROMPTS, seeds=[1, 2], config=config)])


def test_other_subjects_are_drawn_by_the_same_code(base_model: BaseModel) -> None:
    expected = [drawn(base_model, seed) for seed in (1, 2)]
    compile_blocks(base_model)
    first = drawn(base_model, 1)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs > 0
    second = drawn(base_model, 2)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    assert np.abs(np.stack([first, second]) - np.stack(expected)).max() <= 2  # of 255
    assert np.abs(first - second).max() > 8
