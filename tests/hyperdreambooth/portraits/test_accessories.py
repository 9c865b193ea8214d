"""Glasses and hats: where they sit, what they hide, and that a face stays a face under them."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hyperdreambooth.faces import FaceDetector
from hyperdreambooth.portraits.context import (
    COLOURS,
    FRAMES,
    GLASSES_SHARE,
    HAT_SHARE,
    Context,
    Glasses,
    Hat,
    HatKind,
    random_context,
    with_accessories,
)
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.identity import Identity, make_identity
from hyperdreambooth.portraits.render import ACCESSORY, EYES_AND_TEETH, HAIR, OVERSAMPLING, SKIN, render

SIZE = 64
PIXELS = SIZE * OVERSAMPLING
GLASSES = Glasses(frame=FRAMES[0], width=0.38, height=0.3, squareness=3, thickness=0.08)


def with_hat(kind: HatKind) -> Context:
    return Context(hat=Hat(kind=kind, colour_name="red", colour=COLOURS["red"]))


def test_glasses_are_round_the_eyes_and_leave_them_to_be_seen(head: Head, somebody: Identity) -> None:
    rendered = render(head, somebody, Context(glasses=GLASSES), size=SIZE)
    rows, columns = np.nonzero(rendered.regions == ACCESSORY)
    eyes = rendered.landmarks[:2] * PIXELS
    between = eyes[1, 0] - eyes[0, 0]
    assert abs(rows.mean() - eyes[:, 1].mean()) < 0.15 * between
    assert columns.min() < eyes[0, 0] - 0.3 * between
    assert columns.max() > eyes[1, 0] + 0.3 * between
    for column, row in eyes.astype(int):
        assert rendered.regions[row, column] == EYES_AND_TEETH
    frame = rendered.picture[rendered.regions == ACCESSORY].mean(0)
    assert frame.max() < 80  # dark, as was asked for


@pytest.mark.parametrize("kind", HatKind)
def test_a_hat_hides_the_hair_above_it_and_has_its_colour(head: Head, somebody: Identity, kind: HatKind) -> None:
    rendered = render(head, somebody, with_hat(kind), size=SIZE)
    worn = rendered.regions == ACCESSORY
    assert worn.mean() > 0.04
    red, green, blue = rendered.picture[worn].mean(0)
    assert red > 2 * green
    assert red > 2 * blue
    middle = slice(PIXELS * 3 // 8, PIXELS * 5 // 8)
    top = np.nonzero(worn[:, middle].any(1))[0].min()
    assert not (rendered.regions[: top + PIXELS // 12, middle] == HAIR).any()


def test_kinds_of_hats_differ(head: Head, somebody: Identity) -> None:
    cap, beanie, sun_hat = (render(head, somebody, with_hat(kind), size=SIZE).regions == ACCESSORY for kind in HatKind)
    lowest = [np.nonzero(worn[:, PIXELS // 2])[0].max() for worn in (cap, beanie)]
    assert lowest[0] > lowest[1]  # the visor
    widths = [np.ptp(np.nonzero(worn.any(0))[0]) for worn in (cap, beanie, sun_hat)]
    assert widths[2] > 1.15 * max(widths[:2])


@pytest.mark.parametrize("kind", [HatKind.CAP, HatKind.SUN_HAT])
def test_a_brim_is_sewn_to_the_crown(head: Head, kind: HatKind) -> None:
    """No skin between the uppermost and the lowest pixel of a hat, in the middle of the face."""
    for seed in range(1_000_100, 1_000_112):
        rendered = render(head, make_identity(seed, slider_count=len(head.sliders)), with_hat(kind), size=SIZE)
        for column in range(PIXELS * 7 // 16, PIXELS * 9 // 16):
            rows = np.nonzero(rendered.regions[:, column] == ACCESSORY)[0]
            assert (rendered.regions[rows.min() : rows.max(), column] != SKIN).all(), (seed, column)


@pytest.mark.parametrize("context", [Context(glasses=GLASSES), *(with_hat(kind) for kind in HatKind)])
def test_a_face_is_found_under_them(head: Head, somebody: Identity, context: Context) -> None:
    rendered = render(head, somebody, replace(context, yaw=8.0), size=SIZE)
    (face,) = FaceDetector(threads=1)(Image.fromarray(rendered.picture))
    assert np.abs(face.points / PIXELS - rendered.landmarks).mean() < 0.05


def test_some_pictures_have_them_and_everything_else_stays() -> None:
    plain = [random_context(np.random.default_rng(seed)) for seed in range(400)]
    worn = [with_accessories(context, np.random.default_rng(seed)) for seed, context in enumerate(plain)]
    assert worn == [with_accessories(context, np.random.default_rng(seed)) for seed, context in enumerate(plain)]
    assert [replace(context, glasses=None, hat=None) for context in worn] == plain
    assert abs(np.mean([context.glasses is not None for context in worn]) - GLASSES_SHARE) < 0.06
    assert abs(np.mean([context.hat is not None for context in worn]) - HAT_SHARE) < 0.06
    assert {context.hat.kind for context in worn if context.hat} == set(HatKind)
