"""A folder of rendered people that `hdb train` can read."""

from functools import partial
from pathlib import Path

import pytest

from hyperdreambooth.faces import FaceDetector
from hyperdreambooth.recipes import people
from hyperdreambooth.training.pictures import read_pictures


def test_a_folder_holds_a_photo_and_a_caption_for_each_view(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.getbasetemp() / "parsed-head"
    write = partial(people.main, tmp_path, identities=1, views=2, first=7, size=96, cache=cache)
    write()
    pictures = list(read_pictures(str(tmp_path)))
    assert [(picture.person, picture.image.size) for picture in pictures] == [("0000007", (96, 96))] * 2
    assert pictures[0].image.tobytes() != pictures[1].image.tobytes()
    assert all(picture.caption for picture in pictures)
    assert all(len(FaceDetector(threads=1)(picture.image)) == 1 for picture in pictures)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    write()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before
