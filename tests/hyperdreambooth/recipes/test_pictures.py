"""People are rendered in blocks; a block that is there is not rendered again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.render import render
from hyperdreambooth.portraits.styles import draw
from hyperdreambooth.recipes.pictures import (
    STYLES,
    PicturesConfig,
    block_path,
    load_pictures,
    main,
    person,
    render_person,
    varied_context,
    varied_person,
    view_context,
)
from hyperdreambooth.recipes.schedule import TimeIsUp
from tests.hyperdreambooth.recipes.stops import StopAfter


def test_blocks_hold_every_view_and_style_and_are_written_once(tmp_path: Path) -> None:
    config = PicturesConfig(folder=tmp_path, size=32, identities=2, block=1, processes=1, other_styles=2)
    with pytest.raises(TimeIsUp, match="1 of 2 blocks"):
        main(replace(config, deadline=StopAfter(steps=0)))
    main(config)
    pictures, records = load_pictures(config)
    assert pictures.shape == (2 * 2 * 3, 32, 32, 3)
    assert pictures.dtype == np.uint8
    assert sorted(set(records[:, 0])) == [0, 1]
    for seed in (0, 1):
        for view in (0, 1):
            styles = records[(records[:, 0] == seed) & (records[:, 1] == view), 2]
            assert len(set(styles)) == 3
            assert STYLES.index(STYLES[0]) in styles

    block_path(config, 1).unlink()
    before = block_path(config, 0).stat().st_mtime_ns
    main(config)
    assert block_path(config, 0).stat().st_mtime_ns == before
    np.testing.assert_array_equal(load_pictures(config)[0], pictures)


def test_who_is_learned_from_has_hairstyles_and_accessories_and_who_is_judged_has_none(tmp_path: Path) -> None:
    head = Head.load(cache=tmp_path)
    seeds = range(60)
    worn = [context for seed in seeds for context in (varied_context(seed, 0), varied_context(seed, 1))]
    assert any(context.glasses for context in worn)
    assert any(context.hat for context in worn)
    assert not any(view_context(seed, 0).glasses or view_context(seed, 0).hat for seed in seeds)
    styled = [seed for seed in seeds if varied_person(head, seed).hair.fringe]
    assert styled
    assert not any(person(head, seed).hair.fringe for seed in styled)
    dressed = next(seed for seed in seeds if varied_context(seed, 0).hat)
    config = PicturesConfig(size=32, views=1, other_styles=0)
    ((drawn, _),) = render_person(head, dressed, config)
    bare = render(head, person(head, dressed), view_context(dressed, 0), size=32)
    assert np.abs(drawn.astype(float) - np.asarray(draw(bare, STYLES[0], size=32, seed=0))).max() > 50
