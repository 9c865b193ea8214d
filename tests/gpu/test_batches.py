"""The claims about batches, where they matter: on an NVIDIA GPU, with the same tiny model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from hyperdreambooth.attach import attach
from hyperdreambooth.bank import flatten
from hyperdreambooth.config import FinetuneConfig, SampleConfig
from hyperdreambooth.diffusion import BaseModel, load_base_model, sample
from hyperdreambooth.finetune import Flight, Prompts, draw_samples, fast_finetune, gradients, take_step
from hyperdreambooth.lidb import LiDB
from hyperdreambooth.merge import merged
from tests.hyperdreambooth.conftest import random_lidb, write_tiny_folder
from tests.hyperdreambooth.test_finetune import examples_of, lidb_of

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")]

GPU = torch.device("cuda")
FINETUNE = FinetuneConfig(steps=6, noise_draws=2, learning_rate=1e-2, warmup_steps=2)
PROMPTS = ["a photo of a [V] face", "a pencil sketch of a [V] person", "a face"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_folder(folder, prediction_type="v_prediction")
    return folder


@pytest.fixture(scope="module")
def base_model(folder: Path) -> BaseModel:
    return load_base_model(str(folder), device=GPU, dtype=torch.float32)


@pytest.fixture(scope="module")
def base_model_double(folder: Path) -> BaseModel:
    return load_base_model(str(folder), device=GPU, dtype=torch.float64)


@contextmanager
def no_host_sync() -> Iterator[None]:
    """Whatever waits for the GPU raises."""
    try:
        torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def finetuned(base_model: BaseModel, subjects: list[int]) -> torch.Tensor:
    examples = examples_of(base_model, subjects)
    examples = type(examples)(examples.latents.to(base_model.device), examples.prompts, examples.generators)
    return flatten(fast_finetune(base_model, lidb_of(base_model, subjects), examples, FINETUNE))


@pytest.mark.parametrize("batch", [[0, 1, 2, 3], [3, 1]])
def test_a_batch_gives_each_subject_what_it_gets_alone(base_model_double: BaseModel, batch: list[int]) -> None:
    together = finetuned(base_model_double, batch)
    for row, subject in enumerate(batch):
        alone = finetuned(base_model_double, [subject])[0]
        assert torch.linalg.vector_norm(together[row] - alone) <= 1e-9 * torch.linalg.vector_norm(alone)


def test_first_gradients_of_a_float32_batch_are_those_of_single_runs(base_model: BaseModel) -> None:
    def first(subjects: list[int]) -> torch.Tensor:
        examples, lidb = examples_of(base_model, subjects), lidb_of(base_model, subjects)
        examples = type(examples)(examples.latents.to(GPU), examples.prompts, examples.generators)
        samples = draw_samples(base_model, examples, FINETUNE, step=1)
        prompts = Prompts.of(base_model, lidb.basis.table, examples.prompts)
        return gradients(base_model, flatten(lidb).requires_grad_(), lidb, samples, prompts)[1]

    together = first([0, 1, 2])
    for row, subject in enumerate([0, 1, 2]):
        alone = first([subject])[0]
        assert torch.linalg.vector_norm(together[row] - alone) <= 1e-5 * torch.linalg.vector_norm(alone)


def test_the_gpu_finetunes_what_the_cpu_finetunes(base_model_double: BaseModel, folder: Path) -> None:
    on_cpu = load_base_model(str(folder), device=torch.device("cpu"), dtype=torch.float64)
    expected, found = finetuned(on_cpu, [0, 1]), finetuned(base_model_double, [0, 1]).cpu()
    assert torch.linalg.vector_norm(found - expected) <= 1e-6 * torch.linalg.vector_norm(expected)


def test_a_training_step_never_waits_for_the_gpu(base_model: BaseModel) -> None:
    examples = examples_of(base_model, [0, 1])
    examples = type(examples)(examples.latents.to(GPU), examples.prompts, examples.generators)
    lidb = lidb_of(base_model, [0, 1])
    flight = Flight.of(base_model, lidb, examples, [FINETUNE] * 2)
    take_step(base_model, flight, lidb, 1)  # what is set up once may wait
    with no_host_sync():
        take_step(base_model, flight, lidb, 2)


def test_a_drawing_step_never_waits_for_the_gpu(base_model: BaseModel) -> None:
    lidb, modes = random_lidb(base_model, subjects=2), {1: "error", 4: "default"}  # what is set up once may wait

    def on_step(step: int, total: int) -> None:
        torch.cuda.set_sync_debug_mode(modes.get(step, "error"))

    try:
        with attach(base_model, lidb, subject_of_sample=torch.tensor([1, 0], device=GPU)):
            images = sample(base_model, PROMPTS[:2], seeds=[1, 2], config=SampleConfig(steps=4), on_step=on_step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(images) == 2


def test_mixed_subjects_draw_what_each_draws_alone(base_model: BaseModel) -> None:
    lidb, config = random_lidb(base_model, subjects=3), SampleConfig(steps=3, guidance=2.0)
    with attach(base_model, lidb, subject_of_sample=torch.tensor([2, 0, 1], device=GPU)):
        together = sample(base_model, PROMPTS, seeds=[1, 2, 3], config=config)
    for place, row in enumerate([2, 0, 1]):
        alone = LiDB(lidb.basis, lidb.a_train[row : row + 1], lidb.b_train[row : row + 1])
        with merged(base_model, alone):
            (image,) = sample(base_model, PROMPTS[place : place + 1], seeds=[place + 1], config=config)
        assert np.abs(np.asarray(image, int) - np.asarray(together[place], int)).max() <= 2  # of 255
