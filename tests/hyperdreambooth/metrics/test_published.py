"""CLIP, DINO and FaceNet load from folders: tiny random ones in the real formats."""

from pathlib import Path

import numpy as np
from PIL import Image

from hyperdreambooth.faces import FaceDetector
from hyperdreambooth.metrics.face_judges import FacePanel
from hyperdreambooth.metrics.published import Clip, Dino, FaceNet
from tests.hyperdreambooth.published_judges import write_clip, write_dino, write_facenet


def test_clip_embeds_images_and_prompts_in_one_space(tmp_path: Path, photo: Image.Image) -> None:
    write_clip(tmp_path)
    clip = Clip(str(tmp_path))
    images = clip.images([photo, Image.new("RGB", (40, 40), "red")])
    prompts = clip.prompts(["a photo", "a sketch"])
    assert images.shape == prompts.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([images, prompts]), axis=1), 1, atol=1e-5)
    assert not np.allclose(prompts[0], prompts[1])
    assert not np.allclose(images[0], images[1])


def test_dino_reads_the_class_token(tmp_path: Path, photo: Image.Image) -> None:
    write_dino(tmp_path)
    features = Dino(str(tmp_path)).images([photo, photo.rotate(90)])
    assert features.shape == (2, 16)
    assert not np.allclose(features[0], features[1])


def test_facenet_judges_beside_the_others(tmp_path: Path, detector: FaceDetector, photo: Image.Image) -> None:
    write_facenet(tmp_path / "f.onnx")
    judged = FacePanel((FaceNet(tmp_path / "f.onnx"),), detector)(photo)
    assert judged is not None
    red, _, blue = judged["facenet"]
    assert red > blue  # skin
