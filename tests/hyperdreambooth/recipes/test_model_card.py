"""The card says what the weights beside it are."""

import json
import shutil
from pathlib import Path

import pytest

from hyperdreambooth.recipes.model_card import write_model_card
from hyperdreambooth.shipped import MINI


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`mini` without its large weights."""
    names = ("vae", "unet", "text_encoder", "hypernetwork")
    for path in [MINI / name / "config.json" for name in names] + [MINI / "aux_basis.safetensors", MINI / "HISTORY.md"]:
        (tmp_path / path.relative_to(MINI)).parent.mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(MINI))
    return tmp_path


def test_the_shipped_card_is_that_of_the_shipped_folder(folder: Path) -> None:
    write_model_card(folder, {"autoencoder, dB": 27.5})
    told, shipped = ((path / "README.md").read_text() for path in (folder, MINI))
    assert "| autoencoder, dB | 27.500 |" in told
    assert told.split("| part |")[0] == shipped.split("| part |")[0]
    assert told.split("## Data")[1].split("| figure |")[0] == shipped.split("## Data")[1].split("| figure |")[0]
    for line in ("(a = 92, b = 78, rank 8, 16 layers)", "widths 128 and 256", "3 layers, width 128; 32 tokens"):
        assert line in told
        assert line in shipped


@pytest.mark.parametrize(("channels", "kept_of"), [(16, 12), (32, 6)])
def test_channels_are_those_of_the_autoencoder(folder: Path, channels: int, kept_of: int) -> None:
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"latent_channels": channels}))
    write_model_card(folder, {})
    card = (folder / "README.md").read_text()
    assert "HISTORY.md" in card
    assert f"latents of {channels} channels" in card
    assert f"1 number of {kept_of}." in card


def test_weights_made_in_one_go_have_no_history(folder: Path) -> None:
    (folder / "HISTORY.md").unlink()
    write_model_card(folder, {})
    assert "HISTORY" not in (folder / "README.md").read_text()
