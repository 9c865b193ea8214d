"""Who is to be personalised and what is to be drawn: the same for every method, from numbers alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np
import torch
from PIL import Image

from benchmarks.many_subjects.settings import Mix
from hyperdreambooth.adapter import Adapter
from hyperdreambooth.lidb import LiDB
from hyperdreambooth.personalize import Networks, pack

PROMPTS = ("a photo of a {subject}", "a pencil sketch of a {subject}", "an oil painting of a {subject}")
SKEW = 1.5  # how much more popular a subject is than the next
ADAPTER_STD = 0.3  # of the train matrices: enough to be seen in a picture


@dataclass(frozen=True)
class Order:
    """One picture of one subject."""

    subject: int
    prompt: str
    seed: int


def orders(count: int, mix: Mix) -> list[Order]:
    """So many requests, mixed so."""
    return [Order(subject, PROMPTS[row % len(PROMPTS)], row) for row, subject in enumerate(subjects_of(count, mix))]


def subjects_of(count: int, mix: Mix) -> list[int]:
    """Whose picture each request asks for."""
    few = math.ceil(math.sqrt(count))
    match mix:
        case Mix.DISTINCT:
            return list(range(count))
        case Mix.UNIFORM:
            return [row % few for row in range(count)]
        case Mix.SKEWED:
            return _apportioned([SKEW**-subject for subject in range(few)], count)
        case Mix.IDENTICAL:
            return [0] * count
        case _:
            assert_never(mix)


def face(subject: int, *, size: int) -> Image.Image:
    """A smooth picture of nobody: what it shows changes no second."""
    colours = np.random.default_rng(subject).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((size, size), Image.Resampling.BICUBIC)


def random_adapters(networks: Networks, subjects: Sequence[int]) -> list[Adapter]:
    """Adapters in the size and rank that finetuning leaves, without the finetuning."""
    table, rank = networks.basis.table, networks.config.finetune.rank
    rows = []
    for subject in subjects:
        generator = torch.Generator().manual_seed(subject)
        shape = (rank, table.total_a + table.total_b)
        rows.append(torch.randn(shape, generator=generator) * ADAPTER_STD)
    numbers = torch.stack(rows).to(networks.basis.device, networks.basis.dtype)
    a_train, b_train = torch.tensor_split(numbers, [table.total_a], dim=2)
    lidb = LiDB(networks.basis, a_train, b_train)
    packed = [
        pack(lidb, row, networks, networks.config, networks.config.finetune, seed=subject)
        for row, subject in enumerate(subjects)
    ]
    return [adapter for adapter in packed if isinstance(adapter, Adapter)]


def resident_adapters(networks: Networks, count: int) -> list[Adapter]:
    """Many adapters with numbers of their own, made in no time: each is the first one, turned."""
    (first,) = random_adapters(networks, [0])
    return [
        replace(first, a_train=np.roll(first.a_train, turn, axis=1), b_train=np.roll(first.b_train, turn, axis=1))
        for turn in range(count)
    ]


def _apportioned(weights: Sequence[float], count: int) -> list[int]:
    """`count` seats by weight, by largest remainders; at least as many for the heavier."""
    shares = [weight / sum(weights) * count for weight in weights]
    seats = [int(share) for share in shares]
    by_remainder = sorted(range(len(weights)), key=lambda index: seats[index] - shares[index])
    for index in by_remainder[: count - sum(seats)]:
        seats[index] += 1
    return [index for index, own in enumerate(seats) for _ in range(own)]
