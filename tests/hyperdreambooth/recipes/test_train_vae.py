"""The autoencoder's loss, the folding of its scale, and its training in pieces."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hyperdreambooth.recipes.architecture import LATENT_CHANNELS, AutoencoderKL, export, make_mini, make_vae
from hyperdreambooth.recipes.pictures import PICTURES, PicturesConfig, block_path
from hyperdreambooth.recipes.schedule import TimeIsUp
from hyperdreambooth.recipes.train_vae import (
    HELD_OUT,
    VaeConfig,
    face_weights,
    fold_scale,
    main,
    reconstruction_loss,
    to_pictures,
    to_pixels,
)
from tests.hyperdreambooth.recipes.stops import StopAfter


def work_folder(folder: Path) -> VaeConfig:
    """With pictures of noise."""
    people = PicturesConfig(folder=folder, identities=1)
    (folder / PICTURES).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (HELD_OUT + 8, 64, 64, 3), dtype=np.uint8)
    np.savez(block_path(people, 0), pictures=noise, records=np.zeros((len(noise), 3), int))
    return VaeConfig(pictures=people, steps=4, batch=2, threads=1)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, stopped = work_folder(tmp_path / "whole"), work_folder(tmp_path / "stopped")
    main(whole)
    with pytest.raises(TimeIsUp, match="2 of 4 steps"):
        main(replace(stopped, deadline=StopAfter(steps=2)))
    assert not (stopped.folder / "vae").exists()
    main(stopped)
    one, other = (AutoencoderKL.from_pretrained(config.folder / "vae").state_dict() for config in (whole, stopped))
    torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_an_autoencoder_that_is_only_taken_over_keeps_its_latents(tmp_path: Path) -> None:
    before = make_mini(["a face"])
    export(before, tmp_path / "shipped")
    config = replace(work_folder(tmp_path / "work"), start=tmp_path / "shipped", steps=0)
    main(config)
    taken = AutoencoderKL.from_pretrained(config.folder / "vae").state_dict()
    for name, weight in before.vae.state_dict().items():
        torch.testing.assert_close(taken[name], weight.half().float(), rtol=0, atol=0)


def test_pixels_and_pictures_are_inverse() -> None:
    pictures = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = to_pixels(pictures)
    assert pixels.min() >= -1
    assert pixels.max() <= 1
    assert (to_pictures(pixels) == pictures.numpy()).all()


def test_an_error_on_the_face_costs_more_than_one_in_a_corner() -> None:
    weights = face_weights(64, extra=2.0)
    target = torch.zeros(1, 3, 64, 64)
    on_face, in_corner = target.clone(), target.clone()
    on_face[..., 30:34, 30:34] = 1
    in_corner[..., :4, :4] = 1
    losses = [reconstruction_loss(decoded, target, weights, VaeConfig()) for decoded in (on_face, in_corner, target)]
    assert losses[0] > 1.5 * losses[1]
    assert losses[2] == 0


def test_folding_the_scale_changes_the_latents_and_not_the_picture() -> None:
    torch.manual_seed(0)
    vae = make_vae().eval()
    pixels = torch.rand(4, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before = vae.encode(pixels).latent_dist
        decoded = vae.decode(before.mean).sample
        fold_scale(vae, pixels)
        after = vae.encode(pixels).latent_dist
        torch.testing.assert_close(vae.decode(after.mean).sample, decoded, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(LATENT_CHANNELS), rtol=0, atol=1e-4)
    torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(LATENT_CHANNELS), rtol=1e-3, atol=1e-3)
    # The noise keeps its size beside the signal: deviations scale with the means.
    ratio = before.mean.std((0, 2, 3)) * after.std[0, :, 0, 0] / before.std[0, :, 0, 0]
    torch.testing.assert_close(ratio, torch.ones(LATENT_CHANNELS), rtol=1e-2, atol=1e-2)
