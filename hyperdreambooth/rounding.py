"""The same bits whoever else is in the batch, on a CPU and in float32 (decision 11: where, and where not).

A matrix product's kernel, and with it the order of its sums, depends on how many rows it has. That changes the seventh
digit, and forty steps of Adam make the second digit of it (docs/experiments.md). So what belongs to one subject has, in
a batch as alone, the bits of its own rows by themselves, each half of its noise draws on one thread. Larger
convolutions than 1 x 1 need no help: they look at one sample after the other anyway.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

Layer = Callable[[Tensor], Tensor]
# What a kernel is chosen by: the layer in words, its input's shape, strides and dtype, autocast, threads. And the rows
# of a block.
Choice = tuple[str, torch.Size, tuple[int, ...], torch.dtype, bool, int, int]
_rows_at_once: dict[Choice, int] = {}


@contextmanager
def in_blocks(network: nn.Module, rows: int) -> Iterator[None]:
    """Within the block, matrix products with weights have the bits of `rows` rows of their input at a time."""
    layers = [module for module in network.modules() if _is_product(module)]
    try:
        for layer in layers:
            vars(layer)["forward"] = partial(by_blocks, layer.forward, repr(layer), rows)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _is_product(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def by_blocks(product: Layer, words: str, rows: int, x: Tensor) -> Tensor:
    """product(x) with the bits of `rows` rows of x at a time. Equal `words` are equal products, but for the numbers."""
    if x.shape[0] <= rows:
        return product(x)
    autocast, threads = torch.is_autocast_enabled("cpu"), torch.get_num_threads()
    choice = (words, x.shape, x.stride(), x.dtype, autocast, threads, rows)
    if choice not in _rows_at_once:
        _rows_at_once[choice] = _most_rows(product, rows, x)
    return _cut(product, _rows_at_once[choice], x)


def _cut(product: Layer, rows: int, x: Tensor) -> Tensor:
    if x.shape[0] <= rows:
        return product(x)
    return torch.cat([product(block) for block in torch.split(x, rows)])


@torch.enable_grad()
def _most_rows(product: Layer, rows: int, like: Tensor) -> int:
    """The most rows at a time that give the bits of `rows`, forth and back: all of them, or a power of two blocks.

    Tried on drawn numbers, since kernels are chosen by shape. Most products of large batches need no blocks, which take
    a tenth of a step (docs/experiments.md).
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.empty_like(like, requires_grad=False).normal_(generator=generator).requires_grad_()
    wanted = _cut(product, rows, x)
    back = torch.randn(wanted.shape, generator=generator, dtype=wanted.dtype)
    (wanted_back,) = torch.autograd.grad(wanted, x, back)
    size = len(x)
    while size > rows:
        tried = _cut(product, size, x)
        if torch.equal(tried, wanted) and torch.equal(torch.autograd.grad(tried, x, back)[0], wanted_back):
            return size
        size = rows << ((size - 1) // rows).bit_length() - 1  # the next power of two blocks
    return rows
