"""People are rendered in blocks; a block that is there is not rendered again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.identity import FIRST_HELD_OUT_SEED
from hyperdreambooth.portraits.render import render
from hyperdreambooth.portraits.styles import draw
from hyperdreambooth.recipes.people import write_view
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
from hyperdreambooth.recipes.train_base import captions_of
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
    assert any(varied_context(seed, view).glasses for seed in seeds for view in (0, 1))
    assert not any(view_context(seed, 0).glasses or view_context(seed, 0).hat for seed in seeds)
    chosen = next(seed for seed in seeds if varied_context(seed, 0).glasses and varied_person(head, seed).hair.fringe)
    assert not person(head, chosen).hair.fringe
    config = PicturesConfig(size=32, views=1, other_styles=0)
    ((learned, _),) = render_person(head, chosen, config)
    ((judged, _),) = render_person(head, chosen, config, plain=True)
    for drawn, identity, context in (
        (learned, varied_person(head, chosen), varied_context(chosen, 0)),
        (judged, person(head, chosen), view_context(chosen, 0)),
    ):
        expected = draw(render(head, identity, context, size=32), STYLES[0], size=32, seed=0)
        np.testing.assert_array_equal(drawn, np.asarray(expected))
    assert (learned != judged).any()
    with pytest.raises(ValueError, match="for judging"):
        varied_person(head, FIRST_HELD_OUT_SEED)
    assert person(head, FIRST_HELD_OUT_SEED) != person(head, chosen)


def test_captions_are_of_the_people_that_are_drawn(tmp_path: Path) -> None:
    head = Head.load(cache=tmp_path)
    chosen = next(seed for seed in range(60) if varied_context(seed, 0).glasses)
    assert any("glasses" in caption for caption in captions_of(head, np.array([chosen, 0, 0]), count=100))
    written: list[str] = []
    for view in range(400):  # a caption for each; glasses are worn in some views and named in some of these captions
        if varied_context(chosen, view).glasses and len(written) < 12:
            write_view(head, chosen, view, tmp_path / f"{view}.png", size=16)
            written.append((tmp_path / f"{view}.txt").read_text())
    assert any("glasses" in caption for caption in written)
