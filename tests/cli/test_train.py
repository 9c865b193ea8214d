"""What `hdb train` is told on the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.errors import StackError
from cli.main import app
from cli.train import configured
from hyperdreambooth.shipped import MINI
from hyperdreambooth.training.config import FitRunConfig, HypernetworkRunConfig


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"steps": 7, "batch": 3, "pictures": "others"}))
    given = HypernetworkRunConfig(base_model="model", pictures="people")
    config = configured(given, "run", file, ["batch=5", "hypernetwork.width=64", "mixed_precision=bf16"])
    assert (config.base_model, config.pictures, config.output) == ("model", "people", "run")
    assert (config.steps, config.batch, config.mixed_precision) == (7, 5, "bf16")
    assert config.hypernetwork.width == 64
    assert config.hypernetwork.heads == given.hypernetwork.heads


@pytest.mark.parametrize("value", ["stepz=1", "finetune.stepz=1"])
def test_an_unknown_setting_is_named(value: str) -> None:
    with pytest.raises(StackError, match="stepz"):
        configured(FitRunConfig(), None, None, [value])


def test_a_number_is_no_group_of_settings() -> None:
    with pytest.raises(StackError, match="batch is no group"):
        configured(FitRunConfig(), None, None, ["batch.few=1"])


def test_what_fit_does_not_do_is_no_setting_of_it() -> None:
    with pytest.raises(StackError, match="no setting steps"):
        configured(FitRunConfig(), None, None, ["steps=40"])
    assert configured(FitRunConfig(), None, None, ["finetune.steps=40"]).finetune.steps == 40


def test_a_folder_without_pictures_is_said_plainly(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    result = CliRunner().invoke(app, ["train", "fit", str(MINI), str(empty), "--output", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert "holds no picture to train on" in result.output.replace("\n", " ")
