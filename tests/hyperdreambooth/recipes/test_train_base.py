"""Batches, captions and averages of the base model's training."""

import numpy as np
import torch
from torch import nn

from hyperdreambooth.recipes.train_base import BaseConfig, draw_batch, update_average, with_junk


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
