"""Who is it? SFace turns a face into 128 numbers whose cosine says how alike two faces are.

A judge for measurements only: no network here is ever trained against it, and no embedding is ever stored.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hyperdreambooth.faces import SFACE_TEMPLATE, Face, FaceDetector, warp_to
from hyperdreambooth.onnx_weights import open_network

SFACE_FILE = "face_recognition_sface_2021dec_int8bq.onnx"
SFACE_SHA256 = "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee"
SFACE_SIZE = 112


class IdentityEmbedder:
    """SFace: [128], unit length."""

    def __init__(self, *, threads: int = 1) -> None:
        self._network = open_network(SFACE_FILE, SFACE_SHA256, threads=threads)

    def __call__(self, image: Image.Image, detector: FaceDetector) -> NDArray[np.float32] | None:
        """The embedding of the largest face, or None where no face is found."""
        faces = detector(image)
        return self.embed(image, faces[0]) if faces else None

    def embed(self, image: Image.Image, face: Face) -> NDArray[np.float32]:
        """The embedding of a face that has been found already."""
        crop = warp_to(image.convert("RGB"), face.points, SFACE_TEMPLATE, size=SFACE_SIZE)
        pixels = np.asarray(crop, np.float32).transpose(2, 0, 1)[None]
        embedding = self._network.run(["fc1"], {"data": np.ascontiguousarray(pixels)})[0][0]
        return np.asarray(embedding / np.linalg.norm(embedding), np.float32)
