"""Which of the eight styles is this? A linear probe on small pictures, fitted on renders: a measure, never a loss."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image, ImageFilter

from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.recipes.pictures import STYLES

SIDE = 16
RIDGE = 30.0
BLUR = 0.7  # pixels


@dataclass(frozen=True)
class StyleProbe:
    """Ridge regression onto one column per style."""

    weights: Array  # [features + 1, styles]
    scale: Array  # [features]

    @classmethod
    def fit(cls, pictures: Array, styles: Array) -> Self:
        """`pictures` [n, h, w, 3] uint8, `styles` [n] indices into STYLES.

        Fitted on them as they are and a little blurred: a drawing of the model is softer than a render, and what is
        asked is its style, not its sharpness.
        """
        soft = np.stack([np.asarray(softened(Image.fromarray(picture))) for picture in pictures])
        features = _features(np.concatenate([pictures, soft]))
        scale = features.std(0) + 1e-6
        rows = _with_one(features / scale)
        wanted = np.eye(len(STYLES))[np.tile(styles, 2)]
        weights = np.linalg.solve(rows.T @ rows + RIDGE * np.eye(rows.shape[1]), rows.T @ wanted)
        return cls(weights, scale)

    def __call__(self, pictures: Array) -> Array:
        """The likeliest style of each. [n]"""
        guesses: Array = (_with_one(_features(pictures) / self.scale) @ self.weights).argmax(1)
        return guesses


def softened(picture: Image.Image) -> Image.Image:
    """A render, as soft as a model of this size draws."""
    return picture.filter(ImageFilter.GaussianBlur(BLUR))


def _features(pictures: Array) -> Array:
    """Colours of small squares, how colourful and how restless each square is. [n, features]"""
    count, height, _, _ = pictures.shape
    step = height // SIDE
    squares = pictures.astype(np.float64).reshape(count, SIDE, step, SIDE, step, 3) / 255
    colour = squares.mean((2, 4))
    colourful = np.ptp(colour, axis=3)
    restless = squares.std((2, 4)).mean(3)
    parts = [colour.reshape(count, -1), colourful.reshape(count, -1), restless.reshape(count, -1)]
    sorted_parts = [np.sort(colourful.reshape(count, -1), 1)[:, ::16], np.sort(restless.reshape(count, -1), 1)[:, ::16]]
    return np.concatenate([*parts, *sorted_parts], axis=1)


def _with_one(features: Array) -> Array:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)
