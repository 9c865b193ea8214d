"""Other views of one portrait."""

import numpy as np
from PIL import Image, ImageOps

from hyperdreambooth.views import views_of


def portrait() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).resize((64, 64))


def test_the_first_view_is_the_portrait_and_the_second_its_mirror_image() -> None:
    first, second = views_of(portrait(), 2, seed=1)
    np.testing.assert_array_equal(np.asarray(first), np.asarray(portrait()))
    np.testing.assert_array_equal(np.asarray(second), np.asarray(ImageOps.mirror(portrait())))
    (alone,) = views_of(portrait(), 1, seed=1)
    np.testing.assert_array_equal(np.asarray(alone), np.asarray(portrait()))


def test_views_depend_on_the_seed_alone_and_more_of_them_begin_alike() -> None:
    few, many, others = (views_of(portrait(), count, seed=seed) for count, seed in ((4, 1), (8, 1), (8, 2)))
    for one, same in zip(few, many, strict=False):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(same))
    assert any((np.asarray(one) != np.asarray(other)).any() for one, other in zip(many, others, strict=True))


def test_a_view_is_the_portrait_moved_a_little() -> None:
    smooth = Image.fromarray(np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None], (1, 64, 3)))
    for view in views_of(smooth, 8, seed=3):
        assert view.size == smooth.size
        # A ramp over 64 rows: a shift of four per cent and a turn of a tenth move it by a few rows.
        assert np.abs(np.asarray(view, float) - np.asarray(smooth, float)).mean() < 30
