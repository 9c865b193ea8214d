"""Rendered people as files: `python -m hyperdreambooth.recipes.people FOLDER --identities 256 --views 3`.

A folder as `hdb train` reads it: one folder for each person, a photo for each view with its caption beside it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hyperdreambooth.portraits.captions import random_caption
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.render import render
from hyperdreambooth.portraits.styles import Style, draw
from hyperdreambooth.recipes.pictures import varied_context, varied_person
from hyperdreambooth.recipes.progress import Progress

SIZE = 128  # twice what `mini` draws: the face is found, aligned and cut out of it


def main(folder: Path, *, identities: int, views: int, first: int, size: int, cache: Path) -> None:
    """What is there already is not drawn again."""
    head, progress = Head.load(cache=cache), Progress("people", total=identities, unit="people")
    for seed in range(first, first + identities):
        own = folder / f"{seed:07d}"
        own.mkdir(parents=True, exist_ok=True)
        for view in range(views):
            write_view(head, seed, view, own / f"{view}.png", size=size)
        progress.advance()


def write_view(head: Head, seed: int, view: int, path: Path, *, size: int) -> None:
    """The caption first: a picture is there when everything is."""
    if path.exists():
        return
    identity, context = varied_person(head, seed), varied_context(seed, view)
    rng = np.random.default_rng([seed, view, 3])
    path.with_suffix(".txt").write_text(random_caption(identity, context, Style.PHOTO, rng) + "\n")
    picture = draw(render(head, identity, context, size=size), Style.PHOTO, size=size, seed=seed + view)
    aside = path.with_suffix(".part")
    picture.save(aside, format="png")
    aside.replace(path)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hyperdreambooth.recipes.people", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--identities", type=int, default=256)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument(
        "--first", type=int, default=0, help="seed of the first; below 1 000 000, or they are the table's"
    )
    parser.add_argument("--size", type=int, default=SIZE, help="side of a picture")
    parser.add_argument("--cache", type=Path, default=Path("runs/mini/cache"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(**vars(parsed()))
