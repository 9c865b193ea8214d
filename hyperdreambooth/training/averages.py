"""A moving average of a network's weights: quieter than the weights themselves, and what is exported."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """average = decay average + (1 - decay) now, with a decay that grows from zero over the first steps."""

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.weights = {name: weight.detach().clone() for name, weight in _trained(network).items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take a step's weights in."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 10))
        for name, weight in _trained(network).items():
            self.weights[name].lerp_(weight.detach().to(self.weights[name]), 1 - decay)

    @contextmanager
    def applied_to(self, network: nn.Module) -> Iterator[None]:
        """Within the block the network has the average's weights; afterwards its own again."""
        now = {name: weight.detach().clone() for name, weight in _trained(network).items()}
        _copy(self.weights, network)
        try:
            yield
        finally:
            _copy(now, network)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights = {name: state["weights"][name].to(weight) for name, weight in self.weights.items()}
        self.updates = state["updates"]


def _trained(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight for name, weight in network.named_parameters() if weight.requires_grad}


@torch.no_grad()
def _copy(weights: dict[str, Tensor], network: nn.Module) -> None:
    for name, weight in _trained(network).items():
        weight.copy_(weights[name])
