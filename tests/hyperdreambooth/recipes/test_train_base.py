"""Batches, captions and averages of the base model's training; where it starts, and where it goes on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hyperdreambooth.recipes import train_base
from hyperdreambooth.recipes.architecture import LATENT_CHANNELS, AutoencoderKL, export, make_mini, make_vae
from hyperdreambooth.recipes.pictures import PICTURES, PicturesConfig
from hyperdreambooth.recipes.schedule import TimeIsUp
from hyperdreambooth.recipes.train_base import BaseConfig, draw_batch, main, untrained, update_average, with_junk
from tests.hyperdreambooth.recipes.stops import StopAfter

CAPTIONS = [["a photo of a [V] face", "a pencil sketch of a woman"]] * 6


def test_a_batch_spreads_its_timesteps_and_empties_some_prompts() -> None:
    config = BaseConfig(batch=400, drop_caption=0.25)
    latents, tokens = torch.randn(10, 4, 2, 2), torch.arange(1, 11)[:, None].expand(-1, 3)
    nothing = torch.zeros(1, 3, dtype=torch.long)
    drawn, prompts, noise, timesteps = draw_batch(latents, tokens, nothing, config, torch.Generator().manual_seed(0))
    assert drawn.shape == noise.shape == (400, 4, 2, 2)
    counts = torch.histc(timesteps.float(), bins=10, min=0, max=1000)
    assert (counts - 40).abs().max() <= 1
    empty = (prompts == 0).all(1)
    assert 0.15 < empty.float().mean() < 0.35
    # A prompt stays with its picture.
    torch.testing.assert_close(drawn[~empty], latents[prompts[~empty, 0] - 1])


def test_the_same_generator_gives_the_same_batch() -> None:
    arguments = (torch.randn(5, 1, 2, 2), torch.ones(5, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long))
    first, again = (draw_batch(*arguments, BaseConfig(batch=6), torch.Generator().manual_seed(3)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_junk_word_is_added_and_nothing_else_changes() -> None:
    words = with_junk("a photo of a face", np.random.default_rng(0)).split()
    assert len(words) == 6
    invented = [word for word in words if word not in ("a", "photo", "of", "face")]
    assert len(invented) == 1
    words.remove(invented[0])
    assert words == ["a", "photo", "of", "a", "face"]


def test_the_average_moves_its_share_of_the_way() -> None:
    average, network = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        average.weight.fill_(0), network.weight.fill_(1)
    update_average([average], [network], 0.9)
    assert torch.allclose(average.weight, torch.tensor(0.1))


def work_folder(folder: Path) -> BaseConfig:
    """An autoencoder, latents and captions: what the base model learns from."""
    (folder / PICTURES).mkdir(parents=True)
    make_vae().save_pretrained(folder / "vae")
    np.save(
        folder / PICTURES / "latents.npy",
        np.random.default_rng(0).normal(size=(6, LATENT_CHANNELS, 8, 8)).astype(np.float16),
    )
    (folder / PICTURES / "captions.json").write_text(json.dumps(CAPTIONS))
    return BaseConfig(pictures=PicturesConfig(folder=folder), steps=5, batch=2, threads=1, average_steps=2)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_base, "report", lambda mini, folder: None)  # its pictures take a minute
    whole, stopped = work_folder(tmp_path / "whole"), work_folder(tmp_path / "stopped")
    main(whole)
    with pytest.raises(TimeIsUp, match="3 of 5 steps"):
        main(replace(stopped, deadline=StopAfter(steps=3)))
    main(stopped)
    one, other = (torch.load(config.folder / "base.pt", weights_only=True) for config in (whole, stopped))
    for saved in (one, other):
        saved["optimizers"] = [optimizer["state"] for optimizer in saved["optimizers"]]
    torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_a_warm_start_takes_weights_and_tokens_but_the_work_folders_autoencoder(tmp_path: Path) -> None:
    config = work_folder(tmp_path / "work")
    before = make_mini(["a portrait of somebody"])
    export(before, tmp_path / "shipped")
    mini = untrained(replace(config, start=tmp_path / "shipped"), CAPTIONS)
    assert torch.equal(mini.unet.conv_in.weight, before.unet.conv_in.weight.half().float())
    assert mini.tokenizer("somebody").input_ids == before.tokenizer("somebody").input_ids
    assert not torch.equal(mini.vae.decoder.conv_in.weight, before.vae.decoder.conv_in.weight.half().float())
    cold = untrained(config, CAPTIONS)
    assert cold.tokenizer("somebody").input_ids != before.tokenizer("somebody").input_ids


def test_an_autoencoder_of_other_channels_than_the_unet_is_refused(tmp_path: Path) -> None:
    config = work_folder(tmp_path / "work")
    narrow = AutoencoderKL.from_config(make_vae().config | {"latent_channels": 16})
    narrow.save_pretrained(config.folder / "vae")
    with pytest.raises(ValueError, match="16 latent channels, the UNet 32: use another work folder"):
        untrained(config, CAPTIONS)


def test_a_resumed_run_keeps_its_tokenizer(tmp_path: Path) -> None:
    config = work_folder(tmp_path / "work")
    first = untrained(config, CAPTIONS).tokenizer
    again = untrained(config, [["other words entirely"]]).tokenizer
    assert again(CAPTIONS[0]).input_ids == first(CAPTIONS[0]).input_ids
