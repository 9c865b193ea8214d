"""What a recipe needs to go on after it was stopped: written aside and renamed, so that half a file is never read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


@dataclass(frozen=True)
class Checkpoint:
    """Networks and optimisers of one recipe, in their order, and how far it is."""

    path: Path
    networks: Sequence[nn.Module]
    optimizers: Sequence[torch.optim.Optimizer]

    def save(self, progress: dict[str, float]) -> None:
        """Replace the file."""
        aside = self.path.with_suffix(".part")
        aside.parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            {
                "networks": [network.state_dict() for network in self.networks],
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "progress": progress,
            },
            aside,
        )
        aside.replace(self.path)

    def load(self) -> dict[str, float] | None:
        """Put everything back; None where there is no file yet."""
        if not self.path.exists():
            return None
        # From the CPU each tensor goes to where its network or optimiser is.
        saved = torch.load(self.path, weights_only=True, map_location="cpu")
        for network, state in zip(self.networks, saved["networks"], strict=True):
            network.load_state_dict(state)
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        progress: dict[str, float] = saved["progress"]
        return progress
