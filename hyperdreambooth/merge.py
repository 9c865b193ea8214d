"""One subject's weights in place of the base model's: W + ΔW, for as long as nobody else is drawn."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hyperdreambooth.attach import Deltas
from hyperdreambooth.diffusion import BaseModel
from hyperdreambooth.lidb import from_taps


@contextmanager
def merged(base_model: BaseModel, deltas: Deltas) -> Iterator[BaseModel]:
    """Within the block a target layer computes with W + up^T down. W itself is put aside, never written to."""
    assert deltas.subjects == 1, deltas.subjects
    targets = base_model.targets
    originals: dict[str, Tensor] = {}
    try:
        for name, (up, down) in deltas.factors().items():
            originals[name] = targets[name].weight
            original = originals[name].to(up.dtype)
            kernel = from_taps(down[0]) if original.dim() == 4 else down[0]
            own = torch.addmm(original.flatten(1), up[0].T, kernel).view_as(original)
            targets[name].weight = nn.Parameter(own.to(originals[name].dtype), requires_grad=False)
        yield base_model
    finally:
        for name, original in originals.items():
            targets[name].weight = original
