"""Matrices go as far in all directions, as torch's own Muon takes them; convolutions too."""

import copy

import pytest
import torch
from torch import nn

from hyperdreambooth.recipes import optimizers
from hyperdreambooth.recipes.optimizers import Muon, hidden_matrices, orthogonal

RATE, DECAY = 1e-2, 0.1


class Small(nn.Module):
    """Something that is read, two hidden layers, and something that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Embedding(5, 4)
        self.convolution = nn.Conv2d(4, 6, 3)
        self.linear = nn.Linear(6, 8)
        self.write = nn.Linear(8, 2)


@pytest.fixture
def network() -> Small:
    torch.manual_seed(0)
    return Small()


def stepped(network: Small, *, threads: int) -> Small:
    """A copy after two steps along gradients that are always the same."""
    network = copy.deepcopy(network)
    matrices = hidden_matrices([network], but=[network.write])
    muon = Muon(matrices, learning_rate=RATE, weight_decay=DECAY, threads=threads)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=generator)
        muon.step()
    return network


def test_linears_and_convolutions_are_hidden_but_those_named(network: Small) -> None:
    chosen = hidden_matrices([network], but=[network.write])
    assert [id(matrix) for matrix in chosen] == [id(network.convolution.weight), id(network.linear.weight)]


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_singular_values_come_near_one_and_vectors_stay(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "quick_dtype", lambda device: torch.float32)
    left, right = (torch.linalg.qr(torch.randn(side, 5, generator=torch.manual_seed(side))).Q for side in shape)
    found = orthogonal(left @ torch.diag(torch.tensor([1.0, 0.8, 0.3, 0.1, 0.05])) @ right.T)
    inside = left.T @ found @ right
    values = inside.diagonal()
    assert ((values > 0.65) & (values < 1.25)).all(), values
    torch.testing.assert_close(inside - torch.diag(values), torch.zeros(5, 5), rtol=0, atol=1e-4)
    torch.testing.assert_close(left @ inside @ right.T, found, rtol=0, atol=1e-4)


def test_a_linear_goes_where_torchs_own_muon_takes_it(network: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "quick_dtype", lambda device: torch.bfloat16)
    ours, theirs = network.linear, copy.deepcopy(network.linear)
    pair: list[torch.optim.Optimizer] = [
        Muon(hidden_matrices([ours], but=[]), learning_rate=RATE, weight_decay=DECAY, threads=1),
        torch.optim.Muon(
            hidden_matrices([theirs], but=[]), lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"
        ),
    ]
    for _ in range(5):
        gradient = torch.randn(8, 6)
        for linear, optimizer in zip((ours, theirs), pair, strict=True):
            linear.weight.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=RATE * 1e-2)


def test_a_convolution_goes_as_the_matrix_that_it_is(network: Small) -> None:
    flat = nn.Linear(36, 6, bias=False)
    with torch.no_grad():
        flat.weight.copy_(network.convolution.weight.flatten(1))
    muons = [
        Muon(hidden_matrices([layer], but=[]), learning_rate=RATE, weight_decay=DECAY, threads=1)
        for layer in (network.convolution, flat)
    ]
    gradient = torch.randn(6, 4, 3, 3)
    network.convolution.weight.grad, flat.weight.grad = gradient, gradient.flatten(1)
    for muon in muons:
        muon.step()
    assert torch.equal(network.convolution.weight.flatten(1), flat.weight)


def test_threads_change_nothing_and_what_has_no_gradient_stays(network: Small) -> None:
    one, three = stepped(network, threads=1), stepped(network, threads=3)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, three.state_dict()[name])
        moved = name in ("convolution.weight", "linear.weight")
        assert torch.equal(weight, network.state_dict()[name]) is not moved
