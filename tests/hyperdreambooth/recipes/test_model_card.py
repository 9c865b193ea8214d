"""The card says what the weights beside it are."""

import json
from pathlib import Path

import pytest

from hyperdreambooth.recipes.model_card import write_model_card


@pytest.mark.parametrize(("channels", "kept_of"), [(16, 12), (32, 6)])
def test_channels_are_those_of_the_autoencoder(tmp_path: Path, channels: int, kept_of: int) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"latent_channels": channels}))
    write_model_card(tmp_path, {"autoencoder, dB": 27.5})
    card = (tmp_path / "README.md").read_text()
    assert f"latents of {channels} channels" in card
    assert f"1 number of {kept_of}." in card
    assert "| autoencoder, dB | 27.500 |" in card
