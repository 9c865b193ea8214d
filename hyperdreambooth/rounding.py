"""The same bits whoever else is in the batch, on a CPU and in float32 (decision 11: where, and where not).

A matrix product's kernel, and with it the order of its sums, depends on how many rows it has. That changes the seventh
digit, and forty steps of Adam make the second digit of it (docs/experiments.md). So what belongs to one subject goes
through a layer by itself, in a batch as alone, each half of its noise draws on one thread. Larger convolutions than
1 x 1 need none of this: they look at one sample after the other anyway.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

Layer = Callable[[Tensor], Tensor]


@contextmanager
def in_blocks(network: nn.Module, rows: int) -> Iterator[None]:
    """Within the block, matrix products with weights take `rows` rows of their input at a time."""
    layers = [module for module in network.modules() if _is_product(module)]
    try:
        for layer in layers:
            vars(layer)["forward"] = partial(_forward_in_blocks, layer.forward, rows)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _is_product(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def _forward_in_blocks(forward: Layer, rows: int, x: Tensor) -> Tensor:
    if x.shape[0] <= rows:
        return forward(x)
    return torch.cat([forward(block) for block in torch.split(x, rows)])
