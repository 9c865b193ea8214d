"""The photo: every kind that comes is stored upright and bare, or refused with a code."""

import io
import multiprocessing
import struct
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from PIL import Image

from core.errors import PhotoRejected, PhotoTooLarge, PhotoUnreadable, PhotoUnsupported
from core.photos import Limits, Photo, normalise
from tests.core import colour_profiles
from tests.core import photo_corpus as corpus
from tests.core.bomb_squad import cost_of_refusing

LIMITS = Limits(max_bytes=20_000_000, max_pixels=50_000_000)
KINDS = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF")
FILTER = "ignore::UserWarning"  # Pillow warns about damage that the verdict tells of


def opened(photo: Photo) -> Image.Image:
    return Image.open(io.BytesIO(photo.content))


def assert_upright(photo: Photo) -> None:
    image = opened(photo)
    assert image.size == (corpus.WIDTH, corpus.HEIGHT)
    right, bottom = corpus.WIDTH - 10, corpus.HEIGHT - 10
    for place, colour in (
        ((10, 10), corpus.RED),
        ((right, 10), corpus.GREEN),
        ((10, bottom), corpus.BLUE),
        ((right, bottom), corpus.WHITE),
    ):
        seen = image.getpixel(place)
        assert isinstance(seen, tuple)
        assert max(abs(a - b) for a, b in zip(seen, colour, strict=True)) < 40, (place, seen, colour)


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_of_a_phone_is_taken(kind: str) -> None:
    assert_upright(normalise(corpus.encoded(corpus.corners(), kind), LIMITS))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_as_its_camera_was_held(orientation: int) -> None:
    assert_upright(normalise(corpus.turned_jpeg(orientation), LIMITS))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_is_turned_once_and_not_twice(orientation: int) -> None:
    assert_upright(normalise(corpus.turned_heic(orientation), LIMITS))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_that_leaves_its_rotation_to_exif_is_turned_too(orientation: int) -> None:
    assert_upright(normalise(corpus.heic_with_exif_orientation_alone(orientation), LIMITS))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_private_is_stored(kind: str) -> None:
    photo = normalise(corpus.with_private_metadata(kind), LIMITS)
    image = opened(photo)
    assert not image.getexif()
    assert not image.info.keys() & {"exif", "xmp", "comment", "Comment", "icc_profile"}
    assert b"secret" not in photo.content


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_kind_of_pixel_becomes_plain_rgb(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    source = (
        corpus.corners("L").convert("I").point(lambda level: level * 256).convert("I;16") if mode == "I;16" else None
    )
    photo = normalise(corpus.encoded(source or corpus.corners(mode), kind), LIMITS)
    assert opened(photo).mode == "RGB"
    lightest = opened(photo).convert("L").getextrema()[1]
    assert isinstance(lightest, (int, float))
    assert lightest > 200


def colour_of(photo: Photo) -> tuple[int, ...]:
    seen = opened(photo).getpixel((5, 5))
    assert isinstance(seen, tuple)
    return tuple(int(level) for level in seen)


@pytest.mark.parametrize("kind", KINDS)
def test_colours_are_what_the_profile_means(kind: str) -> None:
    red = Image.new("RGB", (64, 64), corpus.RED)
    photo = normalise(corpus.encoded(red, kind, icc_profile=colour_profiles.RED_MEANS_GREEN), LIMITS)
    left, green, right = colour_of(photo)
    assert max(left, right) < 60 < 200 < green


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_a_profile_holds_for_palettes_and_glass(mode: str) -> None:
    red = Image.new("RGB", (64, 64), corpus.RED).convert(mode)
    _, green, _ = colour_of(normalise(corpus.encoded(red, "PNG", icc_profile=colour_profiles.RED_MEANS_GREEN), LIMITS))
    assert green > 200


def test_a_wider_space_is_brought_into_srgb() -> None:
    skin = (200, 150, 130)
    sent = corpus.encoded(Image.new("RGB", (64, 64), skin), "PNG", icc_profile=colour_profiles.DISPLAY_P3)
    from_p3 = np.array([colour_profiles.P3_RED, colour_profiles.P3_GREEN, colour_profiles.P3_BLUE]).T
    from_srgb = np.array([colour_profiles.RED, colour_profiles.GREEN, colour_profiles.BLUE]).T
    light = np.linalg.solve(from_srgb, from_p3 @ (np.array(skin) / 255) ** 2.2)
    expected = (1.055 * light ** (1 / 2.4) - 0.055) * 255  # sRGB's curve (IEC 61966-2-1), above its foot
    assert abs(expected - skin).max() > 2
    np.testing.assert_allclose(colour_of(normalise(sent, LIMITS)), expected, atol=1.5)


@pytest.mark.parametrize("name", colour_profiles.BROKEN)
def test_a_broken_profile_is_ignored(name: str) -> None:
    red = Image.new("RGB", (64, 64), corpus.RED)
    photo = normalise(corpus.encoded(red, "PNG", icc_profile=colour_profiles.BROKEN[name]), LIMITS)
    assert colour_of(photo) == corpus.RED


def test_transparency_becomes_white() -> None:
    glass = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert opened(normalise(corpus.encoded(glass, "PNG"), LIMITS)).getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF"])
def test_of_an_animation_the_first_picture_counts(kind: str) -> None:
    assert_upright(normalise(corpus.animated(kind), LIMITS))


@pytest.mark.parametrize("name", corpus.not_pictures())
def test_what_is_no_picture_is_refused_whatever_its_label(name: str) -> None:
    with pytest.raises(PhotoUnsupported):
        normalise(corpus.not_pictures()[name], LIMITS)


@pytest.mark.parametrize("name", corpus.polyglots())
def test_of_a_polyglot_only_the_picture_is_kept(name: str) -> None:
    photo = normalise(corpus.polyglots()[name], LIMITS)
    assert_upright(photo)
    assert not any(mark in photo.content for mark in (b"PK\x03\x04", b"<script", b"<svg", b"%PDF"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_unreadable(kind: str) -> None:
    whole = corpus.encoded(corpus.corners(), kind)
    with pytest.raises(PhotoUnreadable):
        normalise(whole[: len(whole) // 2], LIMITS)


def test_one_byte_too_many_is_too_large() -> None:
    with pytest.raises(PhotoTooLarge):
        normalise(bytes(LIMITS.max_bytes + 1), LIMITS)


def test_bombs_are_refused_by_their_headers_within_100_ms_and_100_mb() -> None:
    bombs, harmless = corpus.bombs(), [corpus.encoded(corpus.corners(), kind) for kind in KINDS]
    assert all(len(bomb) < 150_000 for bomb in bombs.values())
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        costs = process.submit(cost_of_refusing, bombs, harmless, LIMITS).result()
    _, growth = costs.pop("peak_growth")
    assert growth < 100_000_000
    assert {name: code for name, (code, _) in costs.items()} == dict.fromkeys(bombs, "photo_too_many_pixels") | {
        "PNG with a text of 100 MB": "photo_unreadable"
    }
    assert {name: seconds for name, (_, seconds) in costs.items() if seconds > 0.1} == {}


@pytest.mark.filterwarnings(FILTER)
def test_five_hundred_damaged_files_are_taken_or_refused_and_never_an_accident() -> None:
    verdicts = []
    for content in corpus.mutations(500):
        try:
            verdicts.append(normalise(content, LIMITS).content_type)
        except PhotoRejected as error:
            verdicts.append(error.code)
    assert set(verdicts) <= {"image/png", "photo_unsupported", "photo_unreadable", "photo_too_many_pixels"}
    assert len(set(verdicts)) > 2


def test_a_large_photo_is_shrunk_and_kept_as_a_jpeg() -> None:
    photo = normalise(corpus.encoded(Image.new("RGB", (5000, 2500), "gray"), "JPEG"), LIMITS)
    assert (photo.width, photo.height, photo.content_type) == (4096, 2048, "image/jpeg")


# An orientation, and a maker in two numbers where a text belongs.
MISTYPED = b"II*\0" + struct.pack("<IHHHIHHHHIHHI", 8, 2, 0x010F, 3, 2, 1, 2, corpus.ORIENTATION, 3, 1, 6, 0, 0)


@pytest.mark.parametrize(
    "exif",
    [b"II+\0\b\0\0\0", b"II*\0", b"MM", b"II*\0\b\0\0\0\xff\xff", MISTYPED],
    ids=["BigTIFF cut off", "cut off", "two bytes", "entries missing", "mistyped"],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_photo_with_odd_exif_is_a_photo(kind: str, exif: bytes) -> None:
    photo = normalise(corpus.encoded(corpus.corners(), kind, exif=exif), LIMITS)
    assert sorted((photo.width, photo.height)) == [64, 96]


def test_any_accident_of_a_decoder_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def accident(image: Image.Image, content: bytes) -> Image.Image:
        raise struct.error

    monkeypatch.setattr("core.photos._upright", accident)
    with pytest.raises(PhotoUnreadable):
        normalise(corpus.encoded(corpus.corners(), "PNG"), LIMITS)
