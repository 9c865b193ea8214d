"""How pictures are matched with photos."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.recipes.evaluate import GROUP, EvaluateConfig, asked, match, strangers

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
