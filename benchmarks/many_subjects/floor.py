"""How fast this machine could be at best: the arithmetic of a task, at the rate of its best product or convolution."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.many_subjects.orders import face
from benchmarks.many_subjects.settings import Task
from hyperdreambooth.diffusion import sample
from hyperdreambooth.finetune import fast_finetune
from hyperdreambooth.personalize import Networks, at_rank_of, examples_of, predict
from hyperdreambooth.seating import one_thread

SIDES = {"cpu": (1024, 2048, 4096), "cuda": (4096, 8192)}  # of square matrices
CONVOLUTIONS = {  # of 3 x 3: pictures, channels, side
    "cpu": ((64, 128, 8), (64, 256, 8), (16, 256, 32)),
    "cuda": ((32, 320, 64), (32, 640, 32), (32, 1280, 16)),
}
TRIES = 8


def task_flops(networks: Networks, task: Task) -> int:
    """Of one subject: the networks' own products and convolutions, counted on a real run of each part."""
    return personalize_flops(networks) if task is Task.PERSONALIZE else generate_flops(networks)


def personalize_flops(networks: Networks) -> int:
    """Encoding, prediction and wider rank once; a forward and a backward pass for each step."""
    base_model, finetune = networks.base_model, networks.config.finetune
    portrait = [[face(0, size=base_model.resolution)]]
    with _counter() as once:
        examples = examples_of(base_model, portrait, networks.config, finetune, seeds=[0])
        lidb = at_rank_of(finetune, predict(networks, examples), examples.generators)
    with one_thread():  # what is only done the first time is not of interest
        fast_finetune(base_model, lidb, examples, replace(finetune, steps=1))
    with _counter() as step:
        fast_finetune(base_model, lidb, examples, replace(finetune, steps=1))
    return int(once.get_total_flops() + finetune.steps * step.get_total_flops())


def generate_flops(networks: Networks) -> int:
    """One picture of the base model. The steps are alike, so two runs of few steps tell what many cost."""
    config = networks.config.sample
    one, two = (_sampled_flops(networks, steps) for steps in (2, 3))
    return one + (config.steps - 2) * (two - one)


def best_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The most FLOP/s of any square matrix product, and of any convolution as a UNet has them.

    Either may be the faster: on one EPYC convolutions reach twice the rate of products (docs/experiments.md).
    """
    tried = [*_products(device, dtype), *_convolutions(device, dtype)]
    return max(flops / _seconds(call, device) for flops, call in tried for _ in range(TRIES))


def _products(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[int, Callable[[], object]]]:
    for side in SIDES[device.type]:
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        yield 2 * side**3, partial(torch.mm, left, right)


def _convolutions(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[int, Callable[[], object]]]:
    for count, channels, side in CONVOLUTIONS[device.type]:
        pictures = torch.randn(count, channels, side, side, device=device).to(dtype)
        weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype)
        flops = 2 * count * side**2 * 9 * channels**2
        yield flops, partial(functional.conv2d, pictures, weight, padding=1)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """By the clock on the wall: CPU time by threads took threads that had no part in a product for helpers."""
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _sampled_flops(networks: Networks, steps: int) -> int:
    config = replace(networks.config.sample, steps=steps)
    with _counter() as counter:
        sample(networks.base_model, ["a photo"], seeds=[0], config=config)
    return int(counter.get_total_flops())


@contextmanager
def _counter() -> Iterator[FlopCounterMode]:
    """torch's counter, taught the CPU's fused attention, which it does not know. It sees its own thread alone."""
    aten: Any = torch.ops.aten
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    }
    with one_thread(), FlopCounterMode(display=False, custom_mapping=attention) as counter:
        yield counter


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object) -> int:
    """query key^T, and the weights times value."""
    batch, heads, rows, width = query
    return 2 * batch * heads * rows * key[-2] * (width + value[-1])


def _attention_backward_flops(
    gradient: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object
) -> int:
    """Five products where the way forth had two: the weights again, and a gradient for each factor."""
    batch, heads, rows, width = query
    return 2 * batch * heads * rows * key[-2] * (3 * width + 2 * value[-1])
