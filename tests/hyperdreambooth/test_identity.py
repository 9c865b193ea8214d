import numpy as np
import pytest
from PIL import Image, ImageEnhance

from hyperdreambooth.faces import FaceDetector
from hyperdreambooth.identity import IdentityEmbedder


@pytest.fixture(scope="module")
def embedder() -> IdentityEmbedder:
    return IdentityEmbedder()


def test_the_same_face_is_the_same_person_however_it_was_taken(
    photo: Image.Image, detector: FaceDetector, embedder: IdentityEmbedder
) -> None:
    original = embedder(photo, detector)
    darker = embedder(ImageEnhance.Brightness(photo).enhance(0.6).rotate(20), detector)
    assert original is not None
    assert darker is not None
    assert np.linalg.norm(original) == pytest.approx(1, abs=1e-5)
    # OpenCV's published threshold for "same person" is 0.363.
    assert original @ darker > 0.6


def test_no_face_has_no_identity(detector: FaceDetector, embedder: IdentityEmbedder) -> None:
    assert embedder(Image.new("RGB", (200, 200), "tan"), detector) is None
