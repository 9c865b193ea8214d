"""A trial hides its answers in the key alone, and counts what is right."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperdreambooth.portraits.styles import Style
from hyperdreambooth.recipes.blind import ANSWERS, KEY, BlindConfig, Puzzle, grade, main, write_answers


def test_a_picture_keeps_its_answer_in_another_order() -> None:
    shades = [Image.new("L", (1, 1), shade) for shade in range(20)]
    puzzle = Puzzle.shuffled(shades, [str(shade) for shade in range(20)], np.random.default_rng(0))
    assert [str(picture.getpixel((0, 0))) for picture in puzzle.pictures] == puzzle.truth
    assert puzzle.truth != sorted(puzzle.truth, key=int)
    assert puzzle.key["1"] == puzzle.truth[0]


def test_grading_counts_the_right_answers_beside_chance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = {"match": {"1": "B", "2": "A"}, "styles": {"1": "photo", "2": "pop art", "3": "photo", "4": "pop art"}}
    write_answers(tmp_path, truth)
    assert grade(tmp_path) == {"match": 0, "styles": 0}  # nobody has answered yet
    given = {"match": {"1": " b", "2": "B"}, "styles": {"1": "Photo", "2": "pop art", "3": "pop art", "4": ""}}
    (tmp_path / ANSWERS).write_text(json.dumps(given))
    capsys.readouterr()
    assert grade(tmp_path) == {"match": 1, "styles": 2}
    match, styles = capsys.readouterr().out.splitlines()
    assert "1 of 2 right, by chance 1;" in match
    assert "2 of 4 right, by chance 2;" in styles
    assert "wrong: 3 is photo, 4 is pop art" in styles


def test_a_trial_asks_for_every_person_and_every_style(tmp_path: Path, tiny_folder: Path) -> None:
    config = BlindConfig(out=tmp_path / "trial", folder=tiny_folder, cache=tmp_path, people=2, each_style=1)
    main(config)
    key = json.loads((config.out / KEY).read_text())
    assert sorted(key["match"].values()) == ["A", "B"]
    assert sorted(key["styles"].values()) == sorted(Style)
    answers = json.loads((config.out / ANSWERS).read_text())
    assert {sheet: list(given) for sheet, given in answers.items()} == {
        sheet: list(kept) for sheet, kept in key.items()
    }
    assert not any(answer for given in answers.values() for answer in given.values())
    with Image.open(config.out / "match.png") as match, Image.open(config.out / "styles.png") as styles:
        assert match.width > 2 * 4 * 64  # the photos, side by side, four times enlarged
        assert styles.width > len(Style) * 4 * 16  # the tiny model draws 16 pixels
