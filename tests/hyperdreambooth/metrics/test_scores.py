"""The formulas of the tables, on numbers whose answer is known."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from hyperdreambooth.metrics.anchors import Anchors, measure_anchors
from hyperdreambooth.metrics.scores import change, identity, is_first, pixel_likeness, spread

ANCHORS = Anchors(same=0.9, different=0.5)
EAST, NORTH = np.array([1, 0], np.float32), np.array([0, 1], np.float32)


def noise_picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def test_anchors_are_the_mean_cosines_with_oneself_and_with_others() -> None:
    anchors = measure_anchors([EAST, NORTH, None], [EAST, NORTH, EAST])
    assert anchors == Anchors(same=1.0, different=0.0)


def at_cosine(cosine: float) -> np.ndarray:
    """A picture whose cosine with EAST is this."""
    return np.array([cosine, np.sqrt(1 - cosine**2)], np.float32)


def test_a_stranger_scores_0_and_the_same_person_1() -> None:
    assert identity([at_cosine(0.5)], EAST, [ANCHORS]) == pytest.approx(0)
    assert identity([at_cosine(0.9)], EAST, [ANCHORS]) == pytest.approx(1)


def test_a_picture_without_a_face_is_a_stranger() -> None:
    assert identity([None], EAST, [ANCHORS]) == 0
    assert identity([None, at_cosine(0.9)], EAST, [ANCHORS] * 2) == pytest.approx(0.5)


def test_a_style_in_which_people_look_alike_cannot_dominate() -> None:
    blind = Anchors(same=0.501, different=0.5)
    assert identity([at_cosine(0.9), at_cosine(0.6)], EAST, [ANCHORS, blind]) == pytest.approx(0.5 / 0.401, rel=1e-4)


def test_the_right_photo_must_be_the_most_alike_of_all() -> None:
    assert is_first(EAST, [EAST, NORTH], 0)
    assert not is_first(EAST, [EAST, NORTH], 1)
    assert not is_first(None, [EAST, NORTH], 0)


def test_equal_pictures_have_no_spread() -> None:
    assert spread([EAST, EAST, EAST]) == pytest.approx(0)
    assert spread([EAST, NORTH]) == pytest.approx(1)


def test_a_copy_is_told_from_another_picture_and_survives_a_change_of_light() -> None:
    photo = noise_picture(0)
    darker = photo.point(lambda value: value * 0.7)
    assert pixel_likeness(photo, photo) == pytest.approx(1)
    assert pixel_likeness(darker, photo) > 0.99
    assert abs(pixel_likeness(noise_picture(1), photo)) < 0.2
    assert pixel_likeness(ImageOps.mirror(photo), photo) == pytest.approx(1), "the mirror image is no other picture"


def test_a_flat_picture_is_no_copy() -> None:
    assert pixel_likeness(Image.new("RGB", (16, 16), "red"), noise_picture(0)) == 0


def test_an_unchanged_person_takes_no_harm_and_a_vanished_one_all() -> None:
    assert change(EAST, EAST, ANCHORS) == 0
    assert change(EAST, None, ANCHORS) == 1
    assert change(EAST, NORTH, ANCHORS) == pytest.approx(1 / 0.4)
