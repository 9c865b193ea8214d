"""A recipe that was stopped goes on as if it had not been."""

from pathlib import Path

import torch
from torch import nn

from hyperdreambooth.recipes.checkpoints import Checkpoint


def made(path: Path) -> tuple[nn.Linear, Checkpoint]:
    network = nn.Linear(3, 2)
    adam = torch.optim.AdamW(network.parameters(), lr=0.1)
    return network, Checkpoint(path, networks=[network], optimizers=[adam])


def train(network: nn.Linear, checkpoint: Checkpoint) -> None:
    network(torch.ones(1, 3)).square().sum().backward()
    checkpoint.optimizers[0].step()
    network.zero_grad()


def test_a_loaded_checkpoint_takes_the_same_next_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, checkpoint = made(tmp_path / "one.pt")
    train(network, checkpoint)
    checkpoint.save({"steps": 1.0, "seconds": 2.5})
    other, loaded = made(tmp_path / "one.pt")
    assert loaded.load() == {"steps": 1.0, "seconds": 2.5}
    train(network, checkpoint)
    train(other, loaded)
    torch.testing.assert_close(other.weight, network.weight, rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["one.pt"]


def test_without_a_file_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert made(tmp_path / "none.pt")[1].load() is None
