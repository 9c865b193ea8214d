"""What a cosine means: nothing, until the same judge has measured the same person and strangers in the same style."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hyperdreambooth.metrics.face_judges import Embedding


@dataclass(frozen=True)
class Anchors:
    """Mean cosines of one judge in one style, between a photo and a picture of the same or of a different person."""

    same: float
    different: float

    @property
    def distance(self) -> float:
        """From stranger to same person."""
        return self.same - self.different


def measure_anchors(photos: Sequence[Embedding | None], pictures: Sequence[Embedding | None]) -> Anchors:
    """`photos[i]` and `pictures[i]` show the same person. Where no face was found the person is left out."""
    found = [(photo, other) for photo, other in zip(photos, pictures, strict=True) if photo is not None is not other]
    assert len(found) > 1, "two people at least, or there are no strangers"
    cosines = np.stack([photo for photo, _ in found]) @ np.stack([other for _, other in found]).T
    same = np.eye(len(found), dtype=bool)
    return Anchors(same=float(cosines[same].mean()), different=float(cosines[~same].mean()))
