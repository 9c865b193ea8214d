"""How pictures are matched with photos."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.styles import Style
from hyperdreambooth.recipes.evaluate import GROUP, EvaluateConfig, asked, fitted_probe, match, strangers
from hyperdreambooth.recipes.pictures import PicturesConfig, render_person, varied_context
from hyperdreambooth.recipes.style_probe import StyleProbe

PHOTOS: list[Array | None] = list(np.eye(2 * GROUP))


def test_every_picture_finds_itself() -> None:
    assert match(PHOTOS, PHOTOS) == (1.0, 1.0)
    assert strangers(PHOTOS) == [0.0] * (2 * GROUP * (2 * GROUP - 1) // 2)


def test_a_picture_without_a_face_is_no_match_and_no_cosine() -> None:
    assert match([None, *PHOTOS[1:]], PHOTOS) == (1 - 1 / (2 * GROUP), 1.0)


def test_only_the_photos_of_its_group_compete() -> None:
    swapped = [*PHOTOS[GROUP:], *PHOTOS[:GROUP]]
    share, cosine = match(swapped, PHOTOS)
    assert share == pytest.approx(1 / GROUP)  # all cosines are zero: the first of the group wins
    assert cosine == 0


def test_folder_and_precision_are_asked_for_on_the_command_line() -> None:
    assert asked([]) == EvaluateConfig()
    assert asked(["elsewhere", "--dtype", "bfloat16"]) == EvaluateConfig(folder=Path("elsewhere"), dtype=torch.bfloat16)


def test_the_style_probe_knows_plain_people_alone(tmp_path: Path) -> None:
    head = Head.load(cache=tmp_path)
    people = 4
    assert any(varied_context(seed, 0).glasses or varied_context(seed, 0).hat for seed in range(people))
    config = PicturesConfig(views=1, other_styles=len(Style) - 1)
    probes = {}
    for plain in (True, False):
        rows = [row for seed in range(people) for row in render_person(head, seed, config, plain=plain)]
        pictures, records = zip(*rows, strict=True)
        probes[plain] = StyleProbe.fit(np.stack(pictures), np.array([record[2] for record in records]))
    weights = fitted_probe(head, people=people).weights
    np.testing.assert_array_equal(weights, probes[True].weights)
    assert not np.array_equal(weights, probes[False].weights)
