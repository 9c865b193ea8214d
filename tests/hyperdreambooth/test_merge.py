import numpy as np
import pytest
import torch

from hyperdreambooth.attach import attach
from hyperdreambooth.config import SampleConfig
from hyperdreambooth.diffusion import BaseModel, sample
from hyperdreambooth.merge import merged
from tests.hyperdreambooth.conftest import random_lidb

CONFIG = SampleConfig(steps=3, guidance=2.0)
PROMPTS = ["a photo of a [V] face", "a pencil sketch of a [V] person"]


def test_merged_weights_draw_what_deltas_beside_them_draw(base_model: BaseModel) -> None:
    lidb = random_lidb(base_model, subjects=1, rank=2)
    with merged(base_model, lidb):
        inside = sample(base_model, PROMPTS, seeds=[1, 2], config=CONFIG)
    with attach(base_model, lidb):
        beside = sample(base_model, PROMPTS, seeds=[1, 2], config=CONFIG)
    plain = sample(base_model, PROMPTS, seeds=[1, 2], config=CONFIG)
    one, other, nobody = (np.stack([np.asarray(image, int) for image in images]) for images in (inside, beside, plain))
    assert np.abs(one - other).max() <= 2  # of 255
    assert np.abs(one - nobody).max() > 8


def test_weights_are_bit_identical_afterwards_whatever_happened(base_model: BaseModel) -> None:
    targets = base_model.targets
    weights = {name: linear.weight for name, linear in targets.items()}
    copies = {name: weight.clone() for name, weight in weights.items()}

    def interrupted() -> None:
        with merged(base_model, random_lidb(base_model, subjects=1)):
            assert not any(torch.equal(targets[name].weight, copy) for name, copy in copies.items())
            raise InterruptedError

    with pytest.raises(InterruptedError):
        interrupted()
    assert all(targets[name].weight is weight for name, weight in weights.items())
    assert all(torch.equal(weight, copies[name]) for name, weight in weights.items())


def test_a_merge_that_fails_half_way_leaves_nothing(base_model: BaseModel) -> None:
    weights = {name: linear.weight for name, linear in base_model.targets.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(base_model.targets, sorted(base_model.targets)[-1])
        with pytest.raises(KeyError), merged(base_model, random_lidb(base_model, subjects=1)):
            pass
    assert all(linear.weight is weights[name] for name, linear in base_model.targets.items())
