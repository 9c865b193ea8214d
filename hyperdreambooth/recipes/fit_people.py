"""Fit weights to many people: `python -m hyperdreambooth.recipes.fit_people`, for the hypernetwork to learn from.

A few steps of finetuning on the first photo of each and its mirror image, everybody from one start and with one noise
(`fitting.py` says why), in the quick dtype. Resumable: a block of people is one file, written once.
"""

import hashlib
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hyperdreambooth.acceleration import choose_attention, quick_dtype
from hyperdreambooth.attach import aux_basis
from hyperdreambooth.bank import flatten
from hyperdreambooth.basis import load_learned
from hyperdreambooth.config import FinetuneConfig, load_personalize_config, to_json
from hyperdreambooth.diffusion import BaseModel, encode_images, load_base_model
from hyperdreambooth.fitting import fit_together
from hyperdreambooth.lidb import AuxBasis, LiDB
from hyperdreambooth.portraits.styles import Style
from hyperdreambooth.recipes.pictures import STYLES, block_path
from hyperdreambooth.recipes.progress import Progress
from hyperdreambooth.recipes.stage import WorkConfig
from hyperdreambooth.views import views_of

NAME = "fitted people"
HELD_OUT = 64  # the first people: nothing of the hypernetwork or the aux matrices is learned from them
BATCH = 16  # people who are fitted at once
VIEWS = 2  # the photo and its mirror image: what the hypernetwork is asked for may be either


@dataclass(frozen=True, kw_only=True)
class FitPeopleConfig(WorkConfig):
    """How many people, and how far.

    Steps matter more than draws: 32 of three take as long as 12 of eight, and show four tenths more of the person
    (docs/experiments.md, "How far the teacher goes").
    """

    people: int = 3200  # the first ones, or all that there are; whole blocks of pictures are fitted
    steps: int = 32
    noise_draws: int = 3
    seed: int = 7  # of the start and the noise that all share
    processes: int = 2

    @property
    def blocks(self) -> list[int]:
        """The first person of each."""
        first, people = self.pictures.first_identity, min(self.people, self.pictures.identities)
        return list(range(first, first + people, self.pictures.block))


@dataclass(frozen=True, eq=False)
class FittedPeople:
    """What the hypernetwork sees of each person, and what it should answer."""

    latents: Tensor  # [people, 2, c, h, w]: the photo and its mirror image
    numbers: Tensor  # [people, r (total_a + total_b)]: `bank.flatten` of what was fitted to both

    def rows(self, chosen: slice) -> "FittedPeople":
        return FittedPeople(self.latents[chosen], self.numbers[chosen])


def main(config: FitPeopleConfig) -> None:
    """Write a file for every block that isn't there yet. People who were fitted otherwise are not mixed with them."""
    folder = fitted_folder(config)
    folder.mkdir(exist_ok=True)
    settings, before = to_json(settings_of(config)), folder / "settings.json"
    if before.exists() and before.read_text() != settings:
        raise ValueError(f"{folder} holds people who were fitted otherwise: {before.read_text()}")
    before.write_text(settings)
    missing = [first for first in config.blocks if not _path(folder, first).exists()]
    progress = Progress(NAME, total=len(missing), unit="blocks")
    with ExitStack() as stack:
        if config.device.type == "cpu":
            os.environ["OMP_NUM_THREADS"] = "1"  # the processes are the parallelism
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(config.processes))
            done: Iterator[None] = pool.imap_unordered(partial(fit_block, config), missing)
        else:
            done = map(partial(fit_block, config), missing)
        for _ in done:
            progress.advance()
            if progress.done < len(missing):
                config.deadline.check(f"{progress.done} of {len(missing)} blocks fitted")


def fitted_folder(config: WorkConfig) -> Path:
    """Named after what the weights depend on: base model, aux matrices, target layers, dtype, settings."""
    folder = config.folder / config.base
    base_model = load_base_model(str(folder), device=config.device, dtype=torch.float32)
    learned, wishes = load_learned(folder), load_personalize_config(folder)
    settings = to_json(wishes.lidb), to_json(wishes.finetune_from_start)
    parts = " ".join(
        [base_model.weights_hash, learned.sha256 if learned else "", *settings, str(quick_dtype(config.device))]
    )
    return config.folder / f"fitted-{hashlib.sha256(parts.encode()).hexdigest()[:12]}"


def settings_of(config: FitPeopleConfig) -> FinetuneConfig:
    """As the base model's folder says, but as far as this recipe goes."""
    wishes = load_personalize_config(config.folder / config.base)
    return replace(wishes.finetune_from_start, steps=config.steps, noise_draws=config.noise_draws, views=VIEWS)


def load_fitted_people(config: WorkConfig) -> FittedPeople:
    """Everybody who was fitted so far, in order."""
    blocks = [np.load(path) for path in sorted(fitted_folder(config).glob("*.npz"))]
    latents, numbers = (np.concatenate([block[name] for block in blocks]) for name in ("latents", "numbers"))
    return FittedPeople(torch.from_numpy(latents), torch.from_numpy(numbers))


def fit_block(config: FitPeopleConfig, first: int) -> None:
    """One block of people, written aside and renamed."""
    folder = config.folder / config.base
    exact = load_base_model(str(folder), device=config.device, dtype=torch.float32)
    latents = first_photo_latents(config, exact, first)
    quick = load_base_model(str(folder), device=config.device, dtype=quick_dtype(config.device))
    choose_attention(quick)
    basis = aux_basis(quick, load_personalize_config(folder).lidb, load_learned(folder))
    fitted = [flatten(fit(quick, basis, config, batch.to(quick.dtype))) for batch in torch.split(latents, BATCH)]
    path = _path(fitted_folder(config), first)
    aside = path.with_suffix(".part.npz")
    np.savez(aside, latents=latents.half().cpu().numpy(), numbers=torch.cat(fitted).half().cpu().numpy())
    aside.replace(path)


def fit(base_model: BaseModel, basis: AuxBasis, config: FitPeopleConfig, latents: Tensor) -> LiDB:
    """Some people [S, 2, c, h, w] from the start that all share."""
    wishes = load_personalize_config(config.folder / config.base)
    return fit_together(base_model, basis, list(latents), wishes, settings_of(config), seed=config.seed)


def first_photo_latents(config: WorkConfig, base_model: BaseModel, first: int) -> Tensor:
    """A block's people: the photo of the first view and its mirror image [S, 2, c, h, w]."""
    block = np.load(block_path(config.pictures, first))
    _, views, styles = block["records"].T
    photos = block["pictures"][(views == 0) & (styles == STYLES.index(Style.PHOTO))]
    return torch.stack([encode_images(base_model, views_of(Image.fromarray(photo), VIEWS, seed=0)) for photo in photos])


def _path(folder: Path, first: int) -> Path:
    return folder / f"{first:07d}.npz"


if __name__ == "__main__":
    main(FitPeopleConfig())
