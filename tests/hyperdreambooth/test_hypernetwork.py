import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hyperdreambooth.attach import aux_basis
from hyperdreambooth.config import HypernetworkConfig, LiDBConfig, load_personalize_config
from hyperdreambooth.diffusion import BaseModel, load_base_model
from hyperdreambooth.errors import WeightsDamaged
from hyperdreambooth.hypernetwork import (
    FOLDER,
    Hypernetwork,
    hypernetwork_hash,
    load_hypernetwork,
    save_hypernetwork,
)
from hyperdreambooth.lidb import shared_start
from hyperdreambooth.personalize import load_networks
from tests.hyperdreambooth.conftest import LIDB

CONFIG = HypernetworkConfig(
    image_size=16, stem_channels=(8,), width=16, heads=2, encoder_layers=1, decoder_layers=2, refinement_passes=2
)


def make_hypernetwork(base_model: BaseModel, lidb: LiDBConfig = LIDB, **changes: int) -> Hypernetwork:
    hypernetwork = Hypernetwork(replace(CONFIG, **changes), aux_basis(base_model, lidb))  # type: ignore[arg-type]
    hypernetwork.reset_parameters(torch.Generator().manual_seed(0))
    return hypernetwork


def faces(count: int, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("rank", [1, 3])
def test_a_prediction_has_the_shape_of_a_lidb(base_model: BaseModel, rank: int) -> None:
    lidb = make_hypernetwork(base_model, rank=rank)(faces(3))
    table = lidb.basis.table
    assert lidb.a_train.shape == (3, rank, table.total_a)
    assert lidb.b_train.shape == (3, rank, table.total_b)
    assert torch.linalg.matrix_rank(lidb.delta(table.layers[0])).tolist() == [rank] * 3


def test_layers_narrower_than_a_and_b_are_predicted_too(base_model: BaseModel) -> None:
    lidb = make_hypernetwork(base_model, LiDBConfig(a=20, b=18))(faces(2))
    widths = {(layer.a, layer.b) for layer in lidb.basis.table.layers}
    assert len(widths) > 1
    assert lidb.a_train.shape == (2, 1, lidb.basis.table.total_a)


def test_without_heads_it_predicts_the_shared_start(base_model: BaseModel) -> None:
    hypernetwork = make_hypernetwork(base_model)
    torch.nn.init.zeros_(hypernetwork.decoder.heads)
    lidb, start = hypernetwork(faces(2)), shared_start(hypernetwork.basis, subjects=2)
    assert torch.equal(lidb.a_train, start.a_train)
    assert torch.equal(lidb.b_train, start.b_train)


def test_a_face_gets_the_same_weights_alone_and_among_others(base_model: BaseModel) -> None:
    hypernetwork = make_hypernetwork(base_model)
    together, alone = hypernetwork(faces(3)), hypernetwork(faces(3)[1:2])
    torch.testing.assert_close(together.a_train[1], alone.a_train[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(together.a_train[0], together.a_train[1], rtol=1e-5, atol=1e-6)


def test_each_pass_refines_the_last(base_model: BaseModel) -> None:
    once, twice = make_hypernetwork(base_model, refinement_passes=1), make_hypernetwork(base_model)
    twice.load_state_dict(once.state_dict())
    assert not torch.allclose(once(faces(1)).a_train, twice(faces(1)).a_train)


def test_gradient_reaches_every_parameter(base_model: BaseModel) -> None:
    hypernetwork = make_hypernetwork(base_model)
    lidb = hypernetwork(faces(2))
    (lidb.a_train.square().sum() + lidb.b_train.square().sum()).backward()
    silent = [name for name, parameter in hypernetwork.named_parameters() if parameter.grad is None]
    assert silent == []


def test_a_larger_face_is_made_smaller(base_model: BaseModel) -> None:
    assert make_hypernetwork(base_model)(faces(1, size=40)).rank == 1


def test_a_prediction_of_a_higher_rank_than_the_finetunings_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    base_model = load_base_model(str(folder), device=torch.device("cpu"), dtype=torch.float32)
    rank = load_personalize_config(folder).finetune.rank
    save_hypernetwork(make_hypernetwork(base_model, rank=rank), folder / FOLDER)
    loaded = load_networks(str(folder), device=torch.device("cpu"), dtype=torch.float32)
    assert loaded.prediction_rank == rank
    save_hypernetwork(make_hypernetwork(base_model, rank=rank + 1), folder / FOLDER)
    with pytest.raises(WeightsDamaged, match=f"predicts rank {rank + 1}"):
        load_networks(str(folder), device=torch.device("cpu"), dtype=torch.float32)


def test_a_hypernetwork_survives_its_folder(base_model: BaseModel, tmp_path: Path) -> None:
    hypernetwork = make_hypernetwork(base_model)
    save_hypernetwork(hypernetwork, tmp_path, dtype=torch.float32)
    loaded = load_hypernetwork(tmp_path, aux_basis(base_model, LIDB))
    assert loaded.config == hypernetwork.config
    assert torch.equal(loaded(faces(1)).a_train, hypernetwork(faces(1)).a_train)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert len(hypernetwork_hash(tmp_path)) == 64


def test_a_hypernetwork_for_other_layers_is_refused(base_model: BaseModel, tmp_path: Path) -> None:
    save_hypernetwork(make_hypernetwork(base_model), tmp_path)
    with pytest.raises(WeightsDamaged, match="other target layers"):
        load_hypernetwork(tmp_path, aux_basis(base_model, LiDBConfig(a=11, b=6)))


def test_damaged_weights_are_refused(base_model: BaseModel, tmp_path: Path) -> None:
    save_hypernetwork(make_hypernetwork(base_model), tmp_path)
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(WeightsDamaged, match="not the file"):
        load_hypernetwork(tmp_path, aux_basis(base_model, LIDB))
