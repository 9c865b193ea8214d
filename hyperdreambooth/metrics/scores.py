"""The formulas of the tables, on embeddings, features and pixels. Numbers in, numbers out."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hyperdreambooth.metrics.anchors import Anchors
from hyperdreambooth.metrics.face_judges import Embedding

Features = NDArray[np.floating[Any]]


def cosine(one: Features, other: Features) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def identity(pictures: Sequence[Embedding | None], photo: Embedding, anchors: Sequence[Anchors]) -> float:
    """Σ (cosine - different) / Σ (same - different) over pictures, each with the anchors of its own style.

    A style in which the judge hardly tells people apart thus counts for little, instead of dividing by almost nothing.
    A picture in which no face is found is a stranger: 0.
    """
    gained = sum(
        float(picture @ photo) - own.different
        for picture, own in zip(pictures, anchors, strict=True)
        if picture is not None
    )
    return gained / sum(own.distance for own in anchors)


def is_first(picture: Embedding | None, photos: Sequence[Embedding], own: int) -> bool:
    """Of everybody's photos, is the right person's the most alike? No face is no hit."""
    return picture is not None and int(np.argmax(np.stack(photos) @ picture)) == own


def spread(features: Sequence[Features]) -> float:
    """1 - cosine, averaged over all pairs of pictures of one prompt: 0 if every seed draws the same."""
    return float(np.mean([1 - cosine(one, other) for one, other in combinations(features, 2)]))


def pixel_likeness(picture: Image.Image, photo: Image.Image) -> float:
    """Correlation of the very pixels with the photo's or its mirror image's: 1 is the photo itself, 0 unrelated.

    The larger of the two: a method that learns the mirror image as well may have either by heart. The mean colour is
    taken out, so that a like background alone is no copy.
    """
    one = _without_mean_colour(picture.resize(photo.size))
    others = [_without_mean_colour(view) for view in (photo, ImageOps.mirror(photo))]
    norms = [np.linalg.norm(one) * np.linalg.norm(other) for other in others]
    return max(float((one * other).sum() / norm) if norm else 0.0 for other, norm in zip(others, norms, strict=True))


def _without_mean_colour(picture: Image.Image) -> Features:
    pixels = np.asarray(picture.convert("RGB"), np.float64)
    return np.asarray(pixels - pixels.mean(axis=(0, 1)))


def change(before: Embedding, after: Embedding | None, anchors: Anchors) -> float:
    """How far a person was moved, as a share of the way between the same person and a stranger: 0 not at all.

    A face that was found before and isn't any more has gone the whole way.
    """
    return 1.0 if after is None else (1 - float(before @ after)) / anchors.distance
