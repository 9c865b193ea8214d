"""Which latents the decoder is trained on, that nothing but the decoder changes, and a training in pieces."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hyperdreambooth.recipes.architecture import AutoencoderKL, export, load_mini, make_mini
from hyperdreambooth.recipes.pictures import PICTURES, PicturesConfig, block_path
from hyperdreambooth.recipes.schedule import TimeIsUp
from hyperdreambooth.recipes.train_decoder import DecoderConfig, draw_latents, main, redraw
from hyperdreambooth.recipes.train_vae import HELD_OUT
from tests.hyperdreambooth.recipes.stops import StopAfter


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained `mini`."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    export(make_mini(["a face"]), folder)
    return folder


def work_folder(folder: Path, exported: Path) -> DecoderConfig:
    """With pictures of noise, and everything that the stages before leave behind."""
    people = PicturesConfig(folder=folder, identities=1)
    (folder / PICTURES).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (HELD_OUT + 8, 64, 64, 3), dtype=np.uint8)
    np.savez(block_path(people, 0), pictures=noise, records=np.zeros((len(noise), 3), int))
    (folder / PICTURES / "captions.json").write_text(json.dumps([["a face"]] * len(noise)))
    mini = load_mini(exported)
    export(mini, folder / "base")
    mini.vae.save_pretrained(folder / "vae")
    return DecoderConfig(pictures=people, steps=4, batch=4, threads=1, average_steps=1)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path, exported: Path) -> None:
    whole, stopped = work_folder(tmp_path / "whole", exported), work_folder(tmp_path / "stopped", exported)
    before = AutoencoderKL.from_pretrained(exported / "vae").state_dict()
    main(whole)
    with pytest.raises(TimeIsUp, match="2 of 4 steps"):
        main(replace(stopped, deadline=StopAfter(steps=2)))
    main(stopped)
    one, other = (
        AutoencoderKL.from_pretrained(config.folder / "base" / "vae").state_dict() for config in (whole, stopped)
    )
    torch.testing.assert_close(other, one, rtol=0, atol=0)
    changed = {name.split(".")[0] for name, weight in one.items() if not torch.equal(weight, before[name])}
    assert changed == {"decoder", "post_quant_conv"}, "the UNet's latents must stay what they are"


def test_a_share_of_the_latents_is_the_unets_own() -> None:
    config = DecoderConfig(batch=8, redrawn_share=0.25, noise=0)
    latents = torch.arange(HELD_OUT + 50.0)[:, None, None, None]
    chosen, drawn = draw_latents(
        latents, (torch.tensor([3]), torch.full((1, 1, 1, 1), -1.0)), config, torch.Generator().manual_seed(0)
    )
    assert chosen[:2].tolist() == [3, 3]
    assert drawn[:2].flatten().tolist() == [-1, -1]
    assert drawn[2:].flatten().tolist() == chosen[2:].tolist()
    assert chosen.max() < 50, "what the report shows is never trained on"


def test_redrawing_starts_from_the_latent_and_follows_the_seed(exported: Path) -> None:
    base_model = load_mini(exported).base_model
    latents = torch.randn(2, *base_model.latent_shape, generator=torch.Generator().manual_seed(1))
    drawn = {seed: redraw(base_model, latents, ["a face"] * 2, seed=seed) for seed in range(3)}
    torch.testing.assert_close(redraw(base_model, latents, ["a face"] * 2, seed=0), drawn[0], rtol=0, atol=0)
    assert not torch.equal(drawn[0], drawn[1])
    likeness = [torch.cosine_similarity(one.flatten(), latents.flatten(), dim=0) for one in drawn.values()]
    assert max(likeness) > 0.5, "one step back leaves most of it, even with an untrained UNet"
