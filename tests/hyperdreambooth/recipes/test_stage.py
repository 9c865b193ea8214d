"""One recipe for every device."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hyperdreambooth.recipes.stage import CPU, chosen_device
from hyperdreambooth.recipes.train_base import BaseConfig

CUDA = torch.device("cuda")


@pytest.mark.parametrize(("present", "device"), [(True, CUDA), (False, CPU)])
def test_a_gpu_is_taken_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, present: bool, device: torch.device
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    assert chosen_device("auto") == device
    assert chosen_device("cpu") == CPU
    assert chosen_device("cuda") == CUDA


def test_a_gpu_gets_larger_batches_a_higher_rate_and_one_thread() -> None:
    config = BaseConfig(batch=8, learning_rate=1e-3, threads=2, steps=5, start=Path("somewhere"))
    larger = replace(config, batch=32, learning_rate=2e-3, threads=1, device=CUDA)  # 2: the square root of 4
    assert config.on(CUDA) == larger
    assert config.on(CPU) == config


def test_every_thread_gets_its_part_of_the_batch_on_the_device() -> None:
    first, second = BaseConfig(threads=2).parts([torch.arange(4), torch.ones(4, 3)])
    assert first[0].tolist() == [0, 1]
    assert second[0].tolist() == [2, 3]
    assert second[1].shape == (2, 3)
    (elsewhere,) = BaseConfig(threads=1, device=torch.device("meta")).parts([torch.arange(4)])
    assert elsewhere[0].is_meta
