"""Threads that each take a part of the batch find the gradient of the whole batch."""

import torch
from torch import Tensor, nn

from hyperdreambooth.recipes.parallel import Gradients, split


def test_the_mean_of_the_parts_is_the_gradient_of_the_batch() -> None:
    torch.manual_seed(0)
    network, unused = nn.Linear(5, 3).double(), nn.Parameter(torch.zeros(2))
    inputs, targets = torch.randn(8, 5).double(), torch.randn(8, 3).double()

    def loss_of(part: tuple[Tensor, ...]) -> Tensor:
        return torch.nn.functional.mse_loss(network(part[0]), part[1])

    gradients = Gradients([*network.parameters(), unused], threads=2)
    loss = gradients(loss_of, split([inputs, targets], parts=2))
    expected = loss_of((inputs, targets))
    assert loss == expected.item() or abs(loss - expected.item()) < 1e-12
    for parameter, wanted in zip(
        network.parameters(), torch.autograd.grad(expected, list(network.parameters())), strict=True
    ):
        torch.testing.assert_close(parameter.grad, wanted)
    assert unused.grad is None
