"""Other views of the one face, so that forty steps learn the person and not the pixels of a photo (ours).

Each view more trades likeness for freedom from the photo's pose: what a base model's folder asks for was measured
(docs/experiments.md).
"""

import math

import numpy as np
from PIL import Image, ImageOps

MAX_TURN = 0.1  # radians
MAX_ZOOM = 0.07
MAX_SHIFT = 0.04  # of the side


def views_of(portrait: Image.Image, count: int, *, seed: int) -> list[Image.Image]:
    """`count` pictures: the portrait, its mirror image, then mirrored and not, slightly turned, scaled and shifted."""
    drawn = np.random.default_rng(seed).uniform(-1, 1, (max(count, 2), 4))
    views = [portrait, ImageOps.mirror(portrait)]
    for number in range(2, count):
        turn, zoom, *shift = drawn[number] * (MAX_TURN, MAX_ZOOM, MAX_SHIFT, MAX_SHIFT)
        views.append(_moved(views[number % 2], float(turn), float(1 + zoom), np.array(shift)))
    return views[:count]


def _moved(portrait: Image.Image, turn: float, zoom: float, shift: np.ndarray) -> Image.Image:
    """Turned and scaled about its middle, then shifted; borders are continued outwards."""
    side, margin = portrait.width, portrait.width // 4
    padded = np.pad(np.asarray(portrait), ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    middle = np.full(2, padded.shape[0] / 2)
    linear = zoom * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    offset = middle - linear @ middle + shift * side
    matrix = np.column_stack([linear, offset]).ravel()
    moved = Image.fromarray(padded).transform(
        (padded.shape[1], padded.shape[0]), Image.Transform.AFFINE, tuple(matrix), Image.Resampling.BICUBIC
    )
    return moved.crop((margin, margin, margin + side, margin + side))
