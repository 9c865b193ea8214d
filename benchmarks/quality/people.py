"""Rendered people nobody has trained on: their photo, as it would be uploaded, and true pictures of them.

Seeds below 1 000 000 are for training `mini`, from there on for the table, from 2 000 000 for the judges' calibration,
from 3 000 000 for finding learning rates.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hyperdreambooth.errors import FaceError
from hyperdreambooth.faces import FaceDetector, align_face
from hyperdreambooth.portraits.captions import STYLE_PHRASES, describe
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.identity import FIRST_HELD_OUT_SEED
from hyperdreambooth.portraits.render import render
from hyperdreambooth.portraits.styles import Style, draw
from hyperdreambooth.recipes.pictures import person, view_context

TABLE, CALIBRATION, LEARNING_RATES = FIRST_HELD_OUT_SEED, 2_000_000, 3_000_000
SEEDS_EACH = 1_000_000
PHOTO_SCALE = 2  # the photo has twice the model's resolution
OTHER_VIEWS = range(100, 120)  # of the other portrait: what the rows draw is compared with views below


@dataclass(frozen=True, eq=False)
class Person:
    """One identity, the aligned portrait that every method starts from, and another that none sees."""

    seed: int
    portrait: Image.Image
    other_portrait: Image.Image


def draw_people(head: Head, detector: FaceDetector, *, count: int, first: int, seed: int, size: int) -> list[Person]:
    """`count` people of those that begin at `first`; more people begin with the same ones."""
    people: list[Person] = []
    for number in np.random.default_rng(seed).permutation(SEEDS_EACH):
        if len(people) == count:
            break
        who = first + int(number)
        portrait = _portrait(head, detector, who, view=0, size=size)
        if portrait is None:  # a photo that the service refuses gets no adapter from any method
            continue
        others = (_portrait(head, detector, who, view=view, size=size) for view in OTHER_VIEWS)
        people.append(Person(who, portrait, next(other for other in others if other is not None)))
    return people


def _portrait(head: Head, detector: FaceDetector, who: int, *, view: int, size: int) -> Image.Image | None:
    """A photo as it would be uploaded, aligned as the service does; None where it would be refused."""
    photo = true_picture(head, who, view=view, style=Style.PHOTO, size=size * PHOTO_SCALE)
    try:
        return align_face(photo, detector, size=size, min_face_pixels=size // 3)
    except FaceError:
        return None


def true_picture(head: Head, who: int, *, view: int, style: Style, size: int) -> Image.Image:
    """The person in another pose, light and expression for each view; view 0 is nearly frontal."""
    rendered = render(head, person(head, who), view_context(who, view), size=size)
    return draw(rendered, style, size=size, seed=who + view)


def true_styles(head: Head, who: int, *, view: int, size: int) -> Iterator[tuple[Style, Image.Image]]:
    """One view in all styles: the render is the dear part."""
    rendered = render(head, person(head, who), view_context(who, view), size=size)
    for style in Style:
        yield style, draw(rendered, style, size=size, seed=who + view)


def caption(head: Head, who: int, style: Style) -> str:
    """What the picture shows, in words: "a pencil sketch of a young woman with long brown hair"."""
    return STYLE_PHRASES[style][0].format(describe(person(head, who)))
