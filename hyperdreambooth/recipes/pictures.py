"""Render the people that `mini` learns from: `python -m hyperdreambooth.recipes.pictures`.

A person has VIEWS pictures: the first nearly frontal, as a selfie, the others turned further; each is drawn as a photo
and in some of the other styles. Resumable: a block of people is one file, written once.
"""

import functools
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.context import Context, random_context, with_accessories
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.identity import FIRST_HELD_OUT_SEED, Identity, make_identity, with_hairstyle
from hyperdreambooth.portraits.render import render
from hyperdreambooth.portraits.styles import Style, draw
from hyperdreambooth.recipes.progress import Progress
from hyperdreambooth.recipes.schedule import Deadline

STYLES = tuple(Style)
POSE_DEGREES = (4.0, 10.0)  # of the first view, and of the others
ACCESSORIES = 5  # of a view's streams of random numbers
PICTURES = "pictures-2"  # another number when people or contexts are drawn in another way: captions must be true


@dataclass(frozen=True, kw_only=True)
class PicturesConfig:
    """How many people, and how often each is drawn."""

    folder: Path = Path("runs/mini")
    size: int = 64
    first_identity: int = 0
    identities: int = 9000
    views: int = 2
    other_styles: int = 3  # beside the photo, of each view
    block: int = 100  # people per file
    processes: int = 2
    deadline: Deadline = field(default_factory=Deadline)


def main(config: PicturesConfig) -> None:
    """Write `pictures-2/<first identity>.npz` for every block that isn't there yet."""
    (config.folder / PICTURES).mkdir(parents=True, exist_ok=True)
    Head.load(cache=config.folder / "cache")  # the processes find the parsed targets
    starts = list(range(config.first_identity, _end(config), config.block))
    missing = [first for first in starts if not block_path(config, first).exists()]
    progress = Progress("pictures", total=len(missing), unit="blocks")
    # One thread per process: the processes are the parallelism.
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(config.processes) as pool:
        for _ in pool.imap_unordered(functools.partial(_render_block, config), missing):
            progress.advance()
            if progress.done < len(missing):
                config.deadline.check(f"{len(starts) - len(missing) + progress.done} of {len(starts)} blocks drawn")


def block_path(config: PicturesConfig, first: int) -> Path:
    return config.folder / PICTURES / f"{first:07d}.npz"


def load_pictures(config: PicturesConfig) -> tuple[Array, Array]:
    """All pictures [n, size, size, 3] uint8, and their records [n, 3]: identity, view, index of the style."""
    blocks = [np.load(block_path(config, first)) for first in range(config.first_identity, _end(config), config.block)]
    return np.concatenate([b["pictures"] for b in blocks]), np.concatenate([b["records"] for b in blocks])


def person(head: Head, seed: int) -> Identity:
    """Somebody plain, as the benchmarks judge them: without a hairstyle."""
    return make_identity(seed, slider_count=len(head.sliders))


def view_context(seed: int, view: int) -> Context:
    """The context of a plain person's view: the same whoever asks."""
    return random_context(np.random.default_rng([seed, view]), pose_degrees=POSE_DEGREES[min(view, 1)])


def varied_person(head: Head, seed: int) -> Identity:
    """The same person as one to learn from: with a hairstyle, if it falls to them.

    ValueError for whom judging needs: nobody trains on them.
    """
    if seed >= FIRST_HELD_OUT_SEED:
        raise ValueError(f"people from seed {FIRST_HELD_OUT_SEED} on are for judging: nobody trains on {seed}")
    return with_hairstyle(person(head, seed))


def varied_context(seed: int, view: int) -> Context:
    """The same view, some with glasses or a hat: the same whoever asks, so that captions need no rendering."""
    return with_accessories(view_context(seed, view), np.random.default_rng([seed, view, ACCESSORIES]))


def render_person(
    head: Head, seed: int, config: PicturesConfig, *, plain: bool = False
) -> Iterator[tuple[Array, tuple[int, int, int]]]:
    """Each picture of one person with its record."""
    identity = person(head, seed) if plain else varied_person(head, seed)
    rng = np.random.default_rng([seed, config.views, 1])
    for view in range(config.views):
        context = view_context(seed, view) if plain else varied_context(seed, view)
        rendered = render(head, identity, context, size=config.size)
        others = rng.choice(np.arange(1, len(STYLES)), config.other_styles, replace=False)
        for style in (0, *(int(other) for other in others)):
            picture = draw(rendered, STYLES[style], size=config.size, seed=int(rng.integers(1 << 31)))
            yield np.asarray(picture), (seed, view, style)


def _end(config: PicturesConfig) -> int:
    return config.first_identity + config.identities


def _render_block(config: PicturesConfig, first: int) -> int:
    began = time.monotonic()
    head = _head(config.folder / "cache")
    seeds = range(first, min(first + config.block, _end(config)))
    rows = [row for seed in seeds for row in render_person(head, seed, config)]
    path = block_path(config, first)
    aside = path.with_suffix(".part.npz")
    records = np.array([record for _, record in rows], np.int64)
    np.savez(aside, pictures=np.stack([picture for picture, _ in rows]), records=records)
    aside.replace(path)
    return round(time.monotonic() - began)


@functools.cache
def _head(cache: Path) -> Head:
    return Head.load(cache=cache)


if __name__ == "__main__":
    main(PicturesConfig())
