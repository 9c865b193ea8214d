"""Eight styles of one render: all different, all repeatable."""

import itertools

import numpy as np
import pytest

from hyperdreambooth.portraits.context import Context
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.identity import Identity
from hyperdreambooth.portraits.render import Render, render
from hyperdreambooth.portraits.styles import DRAWN_BY, Style, draw

SIZE = 64


@pytest.fixture(scope="module")
def rendered(head: Head, somebody: Identity) -> Render:
    return render(head, somebody, Context(), size=SIZE)


def test_every_style_can_be_drawn() -> None:
    assert set(DRAWN_BY) == set(Style)


@pytest.mark.parametrize("style", Style)
def test_a_style_has_the_size_asked_for_and_is_repeatable(rendered: Render, style: Style) -> None:
    first, again = (draw(rendered, style, size=SIZE, seed=5) for _ in range(2))
    assert first.size == (SIZE, SIZE)
    assert first.tobytes() == again.tobytes()


def test_any_two_styles_differ_much(rendered: Render) -> None:
    drawn = [np.asarray(draw(rendered, style, size=SIZE, seed=1), np.float32) for style in Style]
    for one, other in itertools.combinations(drawn, 2):
        assert np.abs(one - other).mean() > 8  # of 255


def test_black_and_white_has_no_colour(rendered: Render) -> None:
    drawn = np.asarray(draw(rendered, Style.BLACK_AND_WHITE, size=SIZE, seed=1), int)
    assert np.ptp(drawn, axis=2).max() == 0


def test_pixel_art_is_made_of_blocks(rendered: Render) -> None:
    drawn = np.asarray(draw(rendered, Style.PIXEL_ART, size=SIZE, seed=1))
    blocks = drawn.reshape(SIZE // 4, 4, SIZE // 4, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_pop_art_has_two_palettes_and_the_seed_chooses(rendered: Render) -> None:
    drawn = {draw(rendered, Style.POP_ART, size=SIZE, seed=seed).tobytes() for seed in range(8)}
    assert len(drawn) == 2
