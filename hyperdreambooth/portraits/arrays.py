"""The one array type of the renderer."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def unit(vectors: Array) -> Array:
    """Each vector (the last axis) scaled to length one; a zero vector stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-9), np.float32)


def bump(values: Array | float, *, centre: float | Array, width: float | Array, power: int = 2) -> Array:
    """exp(-|t|^power), t the distance from the centre in widths: 1 at the centre, soft at the rim."""
    return np.asarray(np.exp(-(np.abs((values - centre) / width) ** power)), np.float32)
