import io

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageFilter

from hyperdreambooth.errors import Blurred, FaceTooSmall, NoFace, SeveralFaces
from hyperdreambooth.faces import (
    PORTRAIT_TEMPLATE,
    FaceDetector,
    align_face,
    crop_portrait,
    sharpness,
    similarity,
)


def align(photo: Image.Image, detector: FaceDetector) -> Image.Image:
    return align_face(photo, detector, size=64, min_face_pixels=32)


def beside(*photos: Image.Image) -> Image.Image:
    """Photos next to each other on one sheet."""
    sheet = Image.new("RGB", (sum(photo.width for photo in photos), max(photo.height for photo in photos)), "gray")
    left = 0
    for photo in photos:
        sheet.paste(photo, (left, 0))
        left += photo.width
    return sheet


def test_the_face_in_a_photograph_is_found_where_it_is(photo: Image.Image, detector: FaceDetector) -> None:
    (face,) = detector(photo)
    x, y, width, height = face.box
    assert x < 200 < 247 < x + width  # both eyes, read off the picture
    assert y < 102 < y + height
    assert np.abs(face.points[0] - [200, 102]).max() < 6
    assert np.abs(face.points[1] - [247, 103]).max() < 6


@pytest.mark.parametrize("scale", [0.3, 1, 6])
def test_points_of_the_portrait_lie_where_the_template_has_them(
    photo: Image.Image, detector: FaceDetector, scale: float
) -> None:
    resized = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
    portrait = crop_portrait(resized, detector(resized)[0].points, size=256)
    (face,) = detector(portrait)
    # Five points of one face never fit a template exactly: hers are off by up to a fifteenth of the side.
    assert np.abs(face.points / 256 - PORTRAIT_TEMPLATE).max() < 1 / 15
    assert abs(face.points[0, 1] - face.points[1, 1]) < 16  # of 68 between the eyes


@pytest.mark.parametrize("angle", [-40, -15, 15, 40])
def test_a_tilted_head_is_put_upright(photo: Image.Image, detector: FaceDetector, angle: int) -> None:
    upright, tilted = align(photo, detector), align(photo.rotate(angle, Image.Resampling.BICUBIC), detector)
    difference = np.abs(np.asarray(upright, float) - np.asarray(tilted, float))[16:56, 16:48]
    assert difference.mean() < 15  # a head that stays tilted by 15 degrees differs by 34


def test_a_face_at_the_border_gets_no_black_corner(photo: Image.Image, detector: FaceDetector) -> None:
    portrait = align(Image.eval(photo, lambda value: max(value, 20)).crop((178, 62, 270, 178)), detector)
    assert np.asarray(portrait).min() > 5  # the picture itself has nothing below 20; sharpening may undershoot
    assert portrait.size == (64, 64)


def test_a_face_that_fills_the_photo_is_found(photo: Image.Image, detector: FaceDetector) -> None:
    close = photo.crop((180, 66, 268, 174)).resize((1760, 2160), Image.Resampling.BICUBIC)
    assert align(close, detector).size == (64, 64)


def test_exif_rotation_is_applied(photo: Image.Image, detector: FaceDetector) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    photo.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    turned = align(Image.open(file), detector)
    assert np.array_equal(np.asarray(turned), np.asarray(align(photo, detector)))


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket"])
def test_a_photo_without_a_face_is_refused(name: str, detector: FaceDetector) -> None:
    with pytest.raises(NoFace) as refusal:
        align(Image.fromarray(getattr(skimage.data, name)()), detector)
    assert refusal.value.code == "no_face"


def test_two_people_are_refused_with_both_boxes(photo: Image.Image, detector: FaceDetector) -> None:
    with pytest.raises(SeveralFaces) as refusal:
        align(beside(photo, photo.resize((300, 300))), detector)
    assert len(refusal.value.boxes) == 2
    assert refusal.value.boxes[0][0] < 512 < refusal.value.boxes[1][0]


def test_a_passer_by_is_ignored(photo: Image.Image, detector: FaceDetector) -> None:
    sheet = beside(photo, photo.resize((150, 150), Image.Resampling.LANCZOS))
    assert len(detector(sheet)) == 2
    assert align(sheet, detector).size == (64, 64)


def test_a_face_of_few_pixels_is_refused(photo: Image.Image, detector: FaceDetector) -> None:
    small = photo.resize((150, 150), Image.Resampling.LANCZOS)
    with pytest.raises(FaceTooSmall) as refusal:
        align(small, detector)
    assert min(refusal.value.boxes[0][2:]) < 32
    assert align_face(small, detector, size=64, min_face_pixels=16).size == (64, 64)


@pytest.mark.parametrize(("radius", "is_sharp"), [(0, True), (1, True), (2, True), (5, False), (8, False)])
def test_a_blurred_face_is_refused(photo: Image.Image, detector: FaceDetector, radius: float, is_sharp: bool) -> None:
    blurred = photo.filter(ImageFilter.GaussianBlur(radius))
    if is_sharp:
        assert align(blurred, detector).size == (64, 64)
    else:
        with pytest.raises(Blurred):
            align(blurred, detector)


def test_sharpness_does_not_depend_on_contrast(photo: Image.Image) -> None:
    portrait = photo.crop((160, 40, 288, 168))
    pale = Image.eval(portrait, lambda value: 100 + value // 4)
    assert sharpness(pale) == pytest.approx(sharpness(portrait), rel=0.15)


@given(
    arrays.arrays(float, (5, 2), elements=st.floats(-50, 50)),
    st.floats(-3, 3),
    st.floats(0.1, 10),
    st.tuples(st.floats(-99, 99), st.floats(-99, 99)),
)
def test_a_similarity_is_recovered_from_its_points(
    points: np.ndarray, angle: float, scale: float, shift: tuple[float, float]
) -> None:
    points = points + 100 * np.array([[0, 0], [1, 0], [0, 1], [1, 1], [2, 0]])  # never all in one place
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wanted = np.column_stack([rotation, shift])
    np.testing.assert_allclose(similarity(points, points @ rotation.T + shift), wanted, atol=1e-6)
