import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from hyperdreambooth.attach import aux_basis
from hyperdreambooth.config import FinetuneConfig, load_personalize_config
from hyperdreambooth.diffusion import encode_images, load_base_model
from hyperdreambooth.finetune import Examples, Prompts, draw_samples, subject_losses
from hyperdreambooth.recipes.fit_people import (
    FitPeopleConfig,
    first_photo_latents,
    fit,
    fitted_folder,
    load_fitted_people,
    main,
)
from hyperdreambooth.recipes.pictures import PICTURES, PicturesConfig, block_path
from hyperdreambooth.recipes.schedule import Deadline, TimeIsUp
from tests.hyperdreambooth.conftest import CPU, LIDB

PEOPLE, BLOCK = 4, 2


@pytest.fixture
def config(tmp_path: Path, tiny_folder: Path) -> FitPeopleConfig:
    """A work folder with the tiny base model and people of noise, in two views and two styles."""
    shutil.copytree(tiny_folder, tmp_path / "base")
    pictures = PicturesConfig(folder=tmp_path, size=16, identities=PEOPLE, block=BLOCK)
    (tmp_path / PICTURES).mkdir()
    rng = np.random.default_rng(0)
    for first in range(0, PEOPLE, BLOCK):
        records = [(who, view, style) for who in (first, first + 1) for view in (0, 1) for style in (0, 3)]
        drawn = rng.integers(0, 256, (len(records), 16, 16, 3), dtype=np.uint8)
        np.savez(block_path(pictures, first), pictures=drawn, records=np.array(records))
    return FitPeopleConfig(pictures=pictures, people=PEOPLE, steps=2, processes=1)


def test_everybody_is_fitted_in_order_and_no_block_twice(config: FitPeopleConfig) -> None:
    with pytest.raises(TimeIsUp, match="1 of 2 blocks"):
        main(replace(config, deadline=Deadline(minutes=0)))
    (first,) = fitted_folder(config).glob("*.npz")
    written = first.stat().st_mtime_ns
    main(config)
    assert first.stat().st_mtime_ns == written
    people = load_fitted_people(config)
    base_model = load_base_model(str(config.folder / "base"), device=CPU, dtype=torch.float32)
    wanted = torch.cat([first_photo_latents(config, base_model, block) for block in (0, BLOCK)])
    assert torch.equal(people.latents, wanted.half())
    rank = load_personalize_config(config.folder / "base").finetune_from_start.rank
    table = aux_basis(base_model, LIDB).table
    assert people.numbers.shape == (PEOPLE, rank * (table.total_a + table.total_b))
    assert len(people.numbers.unique(dim=0)) == PEOPLE


def test_people_who_were_fitted_otherwise_are_not_mixed(config: FitPeopleConfig) -> None:
    main(replace(config, people=BLOCK))
    for other in (replace(config, steps=3), replace(config, noise_draws=1)):
        with pytest.raises(ValueError, match="fitted otherwise"):
            main(other)
    main(config)
    assert len(load_fitted_people(config).numbers) == PEOPLE


def test_no_more_people_are_fitted_than_there_are(config: FitPeopleConfig) -> None:
    assert replace(config, people=3).blocks == replace(config, people=5300).blocks == [0, BLOCK]
    assert replace(config, people=2).blocks == [0]


def test_the_photo_of_the_first_view_and_its_mirror_image_are_looked_at(config: FitPeopleConfig) -> None:
    base_model = load_base_model(str(config.folder / "base"), device=CPU, dtype=torch.float32)
    latents = first_photo_latents(config, base_model, BLOCK)
    drawn = [Image.fromarray(picture) for picture in np.load(block_path(config.pictures, BLOCK))["pictures"]]
    photos = [side for photo in (drawn[0], drawn[4]) for side in (photo, ImageOps.mirror(photo))]
    torch.testing.assert_close(latents.flatten(0, 1), encode_images(base_model, photos))


def test_what_is_fitted_denoises_the_photo_better(config: FitPeopleConfig) -> None:
    base_model = load_base_model(str(config.folder / "base"), device=CPU, dtype=torch.float32)
    basis = aux_basis(base_model, LIDB)
    latents = first_photo_latents(config, base_model, 0)
    wishes = load_personalize_config(config.folder / "base")
    prompts = Prompts.of(base_model, basis.table, [wishes.fill_prompt(wishes.instance_prompt)] * BLOCK)

    def loss(steps: int) -> torch.Tensor:
        lidb = fit(base_model, basis, replace(config, steps=steps), latents)
        generators = [torch.Generator().manual_seed(1) for _ in range(BLOCK)]
        examples = Examples(latents.flatten(0, 1), [""] * BLOCK, generators, photo_counts=[2] * BLOCK)
        samples = draw_samples(base_model, examples, FinetuneConfig(noise_draws=8), step=1)
        return subject_losses(base_model, lidb, samples, prompts)

    assert (loss(20) < loss(0)).all()
