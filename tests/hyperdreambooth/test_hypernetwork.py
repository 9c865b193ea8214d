import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from hyperdreambooth.adapter import Adapter
from hyperdreambooth.attach import aux_basis
from hyperdreambooth.config import HypernetworkConfig, LiDBConfig, load_personalize_config
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.errors import WeightsDamaged
from hyperdreambooth.hypernetwork import (
    FOLDER,
    Hypernetwork,
    hypernetwork_hash,
    load_hypernetwork,
    save_hypernetwork,
)
from hyperdreambooth.lidb import LiDB, shared_start
from hyperdreambooth.personalize import load_networks, personalize_faces
from tests.hyperdreambooth.conftest import LIDB

CONFIG = HypernetworkConfig(width=16, heads=2, encoder_layers=1)


def make_hypernetwork(base_model: BaseModel, lidb: LiDBConfig = LIDB, **changes: int) -> Hypernetwork:
    config = replace(CONFIG, **changes)
    hypernetwork = Hypernetwork(config, aux_basis(base_model, lidb), base_model.latent_shape)
    hypernetwork.reset_parameters(torch.Generator().manual_seed(0))
    return hypernetwork


def faces(base_model: BaseModel, count: int) -> torch.Tensor:
    """Latents of some faces."""
    return torch.randn(count, *base_model.latent_shape, generator=torch.Generator().manual_seed(1))


def fitted(base_model: BaseModel, count: int, rank: int) -> LiDB:
    """People whose weights differ in two directions on either side, around a mean that is not zero."""
    generator = torch.Generator().manual_seed(2)
    basis = aux_basis(base_model, LIDB)
    sides = []
    for total in (basis.table.total_a, basis.table.total_b):
        mean, directions = (torch.randn(number, rank, total, generator=generator) for number in (1, 2))
        sides.append(mean + torch.einsum("sd,drn->srn", torch.randn(count, 2, generator=generator), directions))
    return LiDB(basis, *sides)


@pytest.mark.parametrize("rank", [1, 3])
def test_a_prediction_has_the_shape_of_a_lidb(base_model: BaseModel, rank: int) -> None:
    lidb = make_hypernetwork(base_model, rank=rank)(faces(base_model, 3))
    table = lidb.basis.table
    assert lidb.a_train.shape == (3, rank, table.total_a)
    assert lidb.b_train.shape == (3, rank, table.total_b)
    assert torch.linalg.matrix_rank(lidb.delta(table.layers[0])).tolist() == [rank] * 3


def test_layers_narrower_than_a_and_b_are_predicted_too(base_model: BaseModel) -> None:
    lidb = make_hypernetwork(base_model, LiDBConfig(a=20, b=18))(faces(base_model, 2))
    widths = {(layer.a, layer.b) for layer in lidb.basis.table.layers}
    assert len(widths) > 1
    assert lidb.a_train.shape == (2, 1, lidb.basis.table.total_a)


def test_without_heads_it_predicts_the_shared_start(base_model: BaseModel) -> None:
    hypernetwork = make_hypernetwork(base_model)
    torch.nn.init.zeros_(hypernetwork.decoder.heads)
    lidb, start = hypernetwork(faces(base_model, 2)), shared_start(hypernetwork.basis, subjects=2)
    assert torch.equal(lidb.a_train, start.a_train)
    assert torch.equal(lidb.b_train, start.b_train)


def test_a_face_gets_the_same_weights_alone_and_among_others(base_model: BaseModel) -> None:
    hypernetwork = make_hypernetwork(base_model)
    together, alone = hypernetwork(faces(base_model, 3)), hypernetwork(faces(base_model, 3)[1:2])
    torch.testing.assert_close(together.a_train[1], alone.a_train[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(together.a_train[0], together.a_train[1], rtol=1e-5, atol=1e-6)


def test_each_pass_refines_the_last(base_model: BaseModel) -> None:
    hypernetwork = make_hypernetwork(base_model, refinement_passes=3)
    passes = list(hypernetwork.each_pass(faces(base_model, 1)))
    assert len(passes) == 3
    assert torch.equal(passes[-1].a_train, hypernetwork(faces(base_model, 1)).a_train)
    assert not torch.allclose(passes[0].a_train, passes[1].a_train)
    once = make_hypernetwork(base_model, refinement_passes=1)
    once.load_state_dict(hypernetwork.state_dict())
    assert torch.equal(once(faces(base_model, 1)).a_train, passes[0].a_train)


def test_it_can_start_from_people_who_were_fitted(base_model: BaseModel) -> None:
    people, hypernetwork = fitted(base_model, 40, rank=3), make_hypernetwork(base_model, rank=3)
    hypernetwork.start_from(people)
    torch.testing.assert_close(hypernetwork.start_a, people.a_train.mean(dim=0))
    torch.testing.assert_close(hypernetwork.start_b, people.b_train.mean(dim=0))
    apart = torch.stack(
        [
            torch.cat(
                [
                    (own.a_train - hypernetwork.start_a)[..., : LIDB.a].flatten(1),
                    (own.b_train - hypernetwork.start_b)[..., : LIDB.b].flatten(1),
                ],
                dim=1,
            )
            for own in (people, hypernetwork(faces(base_model, 40)))
        ]
    )  # [2, S, numbers of the first layer]
    # What it says of faces it says in the directions that people differ in, of which each side has two.
    assert torch.linalg.matrix_rank(apart, rtol=1e-3).tolist() == [4, 4]
    assert torch.linalg.matrix_rank(apart.flatten(0, 1), rtol=1e-3) == 4
    # A feature of one along the first head is one standard deviation of what people differ in most.
    first = hypernetwork.unit * hypernetwork.decoder.heads[0, 0]
    deviations = torch.linalg.svdvals(apart[0]) / 40**0.5
    torch.testing.assert_close(first.norm(), deviations[0])


def test_gradient_reaches_every_parameter(base_model: BaseModel) -> None:
    hypernetwork = make_hypernetwork(base_model)
    lidb = hypernetwork(faces(base_model, 2))
    (lidb.a_train.square().sum() + lidb.b_train.square().sum()).backward()
    silent = [name for name, parameter in hypernetwork.named_parameters() if parameter.grad is None]
    assert silent == []


def test_a_prediction_of_a_higher_rank_than_the_finetunings_is_narrowed(
    tiny_folder: Path, tmp_path: Path, base_model: BaseModel
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    rank = load_personalize_config(folder).finetune.rank
    save_hypernetwork(make_hypernetwork(base_model, rank=rank + 1), folder / FOLDER)
    networks = load_networks(str(folder), device=torch.device("cpu"), dtype=torch.float32)
    assert networks.prediction_rank == rank + 1
    (outcome,) = personalize_faces(
        [[Image.new("RGB", (16, 16), "tan")]],
        networks,
        networks.config,
        seeds=[0],
        report=lambda phase, step, total: None,
    )
    assert isinstance(outcome, Adapter)
    assert outcome.a_train.shape[0] == rank


def test_a_hypernetwork_that_looks_at_pixels_is_refused(base_model: BaseModel, tmp_path: Path) -> None:
    save_hypernetwork(make_hypernetwork(base_model), tmp_path)
    description = json.loads((tmp_path / "config.json").read_text())
    del description["latent_shape"]
    (tmp_path / "config.json").write_text(json.dumps(description))
    with pytest.raises(WeightsDamaged, match="train a new one"):
        load_hypernetwork(tmp_path, aux_basis(base_model, LIDB))


def test_a_hypernetwork_for_other_latents_is_refused(tiny_folder: Path, tmp_path: Path, base_model: BaseModel) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    channels, height, width = base_model.latent_shape
    larger = Hypernetwork(CONFIG, aux_basis(base_model, LIDB), (channels, 2 * height, 2 * width))
    save_hypernetwork(larger, folder / FOLDER)
    with pytest.raises(WeightsDamaged, match="other latents"):
        load_networks(str(folder), device=torch.device("cpu"), dtype=torch.float32)


def test_a_hypernetwork_survives_its_folder(base_model: BaseModel, tmp_path: Path) -> None:
    hypernetwork = make_hypernetwork(base_model)
    save_hypernetwork(hypernetwork, tmp_path, dtype=torch.float32)
    loaded = load_hypernetwork(tmp_path, aux_basis(base_model, LIDB))
    assert loaded.config == hypernetwork.config
    assert torch.equal(loaded(faces(base_model, 1)).a_train, hypernetwork(faces(base_model, 1)).a_train)
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
