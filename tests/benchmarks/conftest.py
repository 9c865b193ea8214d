"""A base model of a few thousand random weights that draws at the size of mini: noise, but through every line."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hyperdreambooth.attach import aux_basis
from hyperdreambooth.config import HypernetworkConfig
from hyperdreambooth.diffusion import load_base_model
from hyperdreambooth.hypernetwork import FOLDER, Hypernetwork, save_hypernetwork
from tests.hyperdreambooth.conftest import CPU, LIDB, write_tiny_folder

LATENT_SIDE = 32  # times 2 of its autoencoder: 64 pixels, in which a face can be found


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def noisy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "noisy"
    write_tiny_folder(folder, prediction_type="v_prediction")
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": LATENT_SIDE}))
    path = folder / "personalization.json"
    wishes = {"sample": {"steps": 2}, "identifier": "a"}  # of one token, as Textual Inversion wants it
    path.write_text(json.dumps(json.loads(path.read_text()) | wishes))
    base_model = load_base_model(str(folder), device=CPU, dtype=torch.float32)
    config = HypernetworkConfig(width=16, heads=2, encoder_layers=1)
    hypernetwork = Hypernetwork(config, aux_basis(base_model, LIDB), base_model.latent_shape)
    hypernetwork.reset_parameters(torch.Generator().manual_seed(0))
    save_hypernetwork(hypernetwork, folder / FOLDER)
    return folder


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run keeps what it has; the parsed head is shared with the renderer's tests."""
    folder = tmp_path_factory.mktemp("quality")
    parsed = tmp_path_factory.getbasetemp() / "parsed-head"
    parsed.mkdir(exist_ok=True)
    os.symlink(parsed, folder / "head")
    return folder
