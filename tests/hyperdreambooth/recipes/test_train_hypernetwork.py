import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hyperdreambooth.attach import aux_basis
from hyperdreambooth.config import PERSONALIZATION_FILE, HypernetworkConfig, load_personalize_config, to_json
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.hypernetwork import FOLDER, Hypernetwork, load_hypernetwork
from hyperdreambooth.personalize import Networks, load_networks
from hyperdreambooth.recipes.fit_people import HELD_OUT, FittedPeople, fitted_folder
from hyperdreambooth.recipes.pictures import PicturesConfig
from hyperdreambooth.recipes.schedule import TimeIsUp
from hyperdreambooth.recipes.train_hypernetwork import (
    TrainHypernetworkConfig,
    main,
    random_batch,
    report,
    unexplained,
    untrained,
)
from hyperdreambooth.training.fit import fitted_lidb
from tests.hyperdreambooth.conftest import CPU, LIDB
from tests.hyperdreambooth.recipes.stops import StopAfter

PEOPLE = HELD_OUT + 32
HYPERNETWORK = HypernetworkConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1, rank=2)


@pytest.fixture
def people(base_model: BaseModel) -> FittedPeople:
    """What was fitted to a person is a linear function of the mean of its latents; so is the mirror image's."""
    basis, generator = aux_basis(base_model, LIDB), torch.Generator().manual_seed(0)
    numbers = HYPERNETWORK.rank * (basis.table.total_a + basis.table.total_b)
    means, direction = torch.randn(PEOPLE, 1, generator=generator), torch.randn(1, numbers, generator=generator)
    shape = (PEOPLE, 2, *base_model.latent_shape)
    latents = torch.randn(shape, generator=generator) * 0.1 + means.view(-1, 1, 1, 1, 1)
    return FittedPeople(latents.half(), (3 + means @ direction).half())


@pytest.fixture
def config(tmp_path: Path, tiny_folder: Path, people: FittedPeople) -> TrainHypernetworkConfig:
    """A work folder with the tiny base model, whose finetuning is of the rank that is predicted, and fitted people."""
    shutil.copytree(tiny_folder, tmp_path / "base")
    config = TrainHypernetworkConfig(
        pictures=PicturesConfig(folder=tmp_path), hypernetwork=HYPERNETWORK, steps=3, batch=4, threads=1
    )
    folder = fitted_folder(config)
    folder.mkdir()
    for first in (0, PEOPLE // 2):
        rows = slice(first, first + PEOPLE // 2)
        np.savez(
            folder / f"{first:07d}.npz", latents=people.latents[rows].numpy(), numbers=people.numbers[rows].numpy()
        )
    return config


def test_a_batch_is_peoples_photos_or_their_mirror_images_and_their_own_numbers(
    config: TrainHypernetworkConfig, people: FittedPeople
) -> None:
    latents, numbers = random_batch(people, replace(config, batch=40), torch.Generator().manual_seed(0))
    sides = []
    for photo, own in zip(latents, numbers, strict=True):
        (who,) = (people.numbers.float() == own).all(dim=1).nonzero()[:, 0].tolist()
        sides.append([bool(torch.equal(photo, side.float())) for side in people.latents[who]].index(True))
    assert set(sides) == {0, 1}


def test_it_learns_what_was_fitted_to_people_it_has_not_seen(base_model: BaseModel, people: FittedPeople) -> None:
    seen, unseen = people.rows(slice(HELD_OUT, None)), people.rows(slice(HELD_OUT))
    basis = aux_basis(base_model, LIDB)
    hypernetwork = Hypernetwork(HYPERNETWORK, basis, base_model.latent_shape)
    hypernetwork.reset_parameters(torch.Generator().manual_seed(0))
    hypernetwork.start_from(fitted_lidb(seen.numbers, basis))
    before = unexplained(hypernetwork, unseen.latents[:, 0].float(), unseen.numbers.float())
    adam = torch.optim.Adam(hypernetwork.parameters(), lr=3e-3)
    for _ in range(60):
        loss = unexplained(hypernetwork, seen.latents[:, 0].float(), seen.numbers.float()).mean()
        adam.zero_grad()
        torch.autograd.backward(loss)
        adam.step()
    after = unexplained(hypernetwork, unseen.latents[:, 0].float(), unseen.numbers.float())
    assert after.shape == (HYPERNETWORK.refinement_passes,)
    assert after.max() < 0.3 < 0.7 < before.min()


def test_a_run_exports_a_hypernetwork_that_the_base_model_opens_and_goes_on_where_it_was(
    config: TrainHypernetworkConfig, tiny_networks: Networks, capsys: pytest.CaptureFixture[str]
) -> None:
    main(config)
    networks = load_networks(str(config.folder / "base"), device=CPU, dtype=torch.float32)
    assert networks.hypernetwork is not None
    assert networks.hypernetwork.config == HYPERNETWORK
    assert networks.hypernetwork_hash != tiny_networks.hypernetwork_hash
    assert (config.folder / "hypernetwork.png").exists()
    first = capsys.readouterr().out
    main(config)  # the budget is spent: nothing is trained, everything is reported again
    assert first.splitlines()[-1].split("held-out")[1] == capsys.readouterr().out.splitlines()[-1].split("held-out")[1]


def test_the_exported_prediction_goes_further_from_the_mean_than_what_was_learned(
    config: TrainHypernetworkConfig, base_model: BaseModel, people: FittedPeople
) -> None:
    basis = aux_basis(base_model, load_personalize_config(config.folder / "base").lidb)
    learned = untrained(config, base_model, basis, people)
    report(base_model, learned, people.rows(slice(2)), config)
    exported = load_hypernetwork(config.folder / "base" / FOLDER, basis)
    latents = people.latents[:2, 0].float()
    with torch.no_grad():
        near, far = (each(latents).a_train - learned.start_a for each in (learned, exported))
    assert near.abs().mean() > 0.05
    torch.testing.assert_close(far, config.gain * near, rtol=0.02, atol=0.02)


def test_too_few_people_are_named(config: TrainHypernetworkConfig) -> None:
    second = fitted_folder(config) / f"{PEOPLE // 2:07d}.npz"
    second.unlink()
    with pytest.raises(ValueError, match=f"{PEOPLE // 2} fitted people are too few: {HELD_OUT}"):
        main(config)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(config: TrainHypernetworkConfig) -> None:
    def checkpoint() -> dict[str, object]:
        (path,) = config.folder.glob("hypernetwork-*.pt")
        saved: dict[str, object] = torch.load(path, weights_only=True)
        path.unlink()
        return saved

    main(config)
    whole = checkpoint()
    with pytest.raises(TimeIsUp, match="1 of 3 steps"):
        main(replace(config, deadline=StopAfter(steps=1)))
    main(config)
    torch.testing.assert_close(checkpoint(), whole, rtol=0, atol=0)


def test_a_warm_start_takes_the_hypernetwork_over(
    config: TrainHypernetworkConfig, tiny_folder: Path, tiny_networks: Networks, people: FittedPeople
) -> None:
    assert tiny_networks.hypernetwork is not None
    base_model, basis = tiny_networks.base_model, tiny_networks.basis
    warm = untrained(replace(config, start=tiny_folder), base_model, basis, people)
    shipped = tiny_networks.hypernetwork.state_dict()
    shipped["unit"] = shipped["unit"] / config.gain  # which the export multiplied in
    torch.testing.assert_close(warm.state_dict(), shipped, rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in warm.parameters())
    assert not torch.equal(untrained(config, base_model, basis, people).start_a, warm.start_a)


def test_people_fitted_to_other_weights_or_layers_are_not_taken(config: TrainHypernetworkConfig) -> None:
    folder = config.folder / "base"
    wishes = load_personalize_config(folder)
    others = (
        replace(wishes, lidb=replace(wishes.lidb, aux_seed=1)),
        replace(wishes, finetune_from_start=replace(wishes.finetune_from_start, rank=4)),
    )
    folders = {fitted_folder(config)}
    for other in others:
        (folder / PERSONALIZATION_FILE).write_text(to_json(other))
        folders.add(fitted_folder(config))
    assert len(folders) == 3
