"""`hdb train base`, on a base model of a few thousand weights."""

from pathlib import Path

import torch

from hyperdreambooth.config import SampleConfig
from hyperdreambooth.diffusion import load_base_model, sample
from hyperdreambooth.training.base import main
from hyperdreambooth.training.config import BaseRunConfig


def test_a_base_model_is_trained_and_exported_as_a_folder_that_draws(
    tiny_folder: Path, faces: Path, tmp_path: Path
) -> None:
    config = BaseRunConfig(
        base_model=str(tiny_folder),
        pictures=str(faces),
        output=str(tmp_path / "run"),
        steps=3,
        batch=4,
        warmup_steps=1,
        learning_rate=1e-3,
        save_every=2,
        show_every=3,
    )
    main(config)
    before, after = (
        load_base_model(str(folder), device=torch.device("cpu"), dtype=torch.float32)
        for folder in (tiny_folder, config.folder / "base")
    )
    assert after.weights_hash != before.weights_hash
    for name, weight in before.vae.state_dict().items():
        assert torch.equal(after.vae.state_dict()[name], weight), name
    assert not (config.folder / "base" / "hypernetwork").exists()
    (picture,) = sample(after, ["a photo"], seeds=[0], config=SampleConfig(steps=2))
    assert picture.size == (after.resolution, after.resolution)
    assert len(list((config.folder / "sheets").glob("samples-*.png"))) == 1
