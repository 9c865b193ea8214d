"""Did the picture do as it was told? Two linear readings of image features, fitted on rendered pictures.

Neither is CLIP, so their numbers can't stand beside the paper's CLIP-T; `published.py` has the real one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating[Any]]
RIDGE = 1.0  # in units of the features' mean variance


@dataclass(frozen=True, eq=False)
class Ridge:
    """y = (x - mean_x) W + mean_y with small W, by least squares."""

    mean_x: Numbers
    mean_y: Numbers
    weights: Numbers  # [features, outputs]

    @classmethod
    def fit(cls, x: Numbers, y: Numbers, *, ridge: float = RIDGE) -> "Ridge":
        """In the dual, since there are more features than pictures: W = X^T (X X^T + λ I)^-1 Y."""
        centred_x, centred_y = (values.astype(np.float64) - values.mean(0) for values in (x, y))
        gram = centred_x @ centred_x.T
        gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
        return cls(x.mean(0), y.mean(0), centred_x.T @ np.linalg.solve(gram, centred_y))

    def __call__(self, x: Numbers) -> Numbers:
        return np.asarray((x - self.mean_x) @ self.weights + self.mean_y)


@dataclass(frozen=True, eq=False)
class StyleProbe:
    """Names the style of a picture."""

    ridge: Ridge
    styles: tuple[str, ...]

    @classmethod
    def fit(cls, features: Numbers, styles: Sequence[str]) -> "StyleProbe":
        names = tuple(dict.fromkeys(styles))
        return cls(Ridge.fit(features, np.array([[style == name for name in names] for style in styles], float)), names)

    def __call__(self, features: Numbers) -> list[str]:
        """The style of each picture [n, features]."""
        return [self.styles[best] for best in self.ridge(features).argmax(axis=1)]


@dataclass(frozen=True, eq=False)
class TextScore:
    """Reads a sentence out of a picture; compares it with the prompt."""

    ridge: Ridge  # image features to sentence space

    @classmethod
    def fit(cls, features: Numbers, sentences: Numbers) -> "TextScore":
        return cls(Ridge.fit(features, sentences))

    def __call__(self, features: Numbers, prompts: Numbers) -> Numbers:
        """Cosine of what is read and what was asked [n]: both less the mean caption, which says nothing."""
        read, asked = self.ridge(features) - self.ridge.mean_y, prompts - self.ridge.mean_y
        norms = np.linalg.norm(read, axis=1) * np.linalg.norm(asked, axis=1)
        return np.asarray((read * asked).sum(axis=1) / np.maximum(norms, 1e-12))
