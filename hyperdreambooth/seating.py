"""Who sits where in a batch, and which part of it a thread computes. Read by the deltas in every target layer."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import chain, pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
EVERYBODY = slice(None)
ROWS_EACH = 8  # pictures; fewer are not worth a part: it would read all the weights for them (docs/experiments.md)


class Seating:
    """Which subject each row of the networks' input belongs to."""

    def __init__(self) -> None:
        self.rows: Tensor | None = None  # [B]; None where a batch holds equally many neighbouring rows of each subject
        self.own_texts = False  # are there deltas in the text encoder?
        self.own_keys = False  # or in the cross-attention's projections of its answers?
        self.in_turn = False  # are there several subjects, with equally many neighbouring rows each?
        self._here = threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Seating":
        return Seating()  # in a copy of the networks nobody sits yet

    @property
    def part(self) -> slice:
        """The rows that this thread computes."""
        part: slice = getattr(self._here, "part", EVERYBODY)
        return part

    @property
    def subjects(self) -> slice:
        """The subjects of these rows, where each has equally many neighbouring ones."""
        subjects: slice = getattr(self._here, "subjects", EVERYBODY)
        return subjects

    @contextmanager
    def seated(
        self, rows: Tensor | None, *, own_texts: bool = False, own_keys: bool = False, in_turn: bool = False
    ) -> Iterator[None]:
        """Within the block, `rows` says whose each row is; `own_texts` and `own_keys`, that a subject may read prompts,
        or the text encoder's answers, in its own way.

        What is so outside stays so.
        """
        before = self.rows, self.own_texts, self.own_keys, self.in_turn
        self.rows, self.own_texts, self.own_keys = rows, self.own_texts or own_texts, self.own_keys or own_keys
        self.in_turn = self.in_turn or in_turn
        try:
            yield
        finally:
            self.rows, self.own_texts, self.own_keys, self.in_turn = before

    def in_parts(
        self, work: Callable[[slice], Result], count: int, device: torch.device, *, together: int | None = None
    ) -> list[Result]:
        """`work` on parts of a batch of `count`, in order, each on a core of its own; on a GPU on the whole.

        So many neighbouring rows stay `together`, and are enough for a part.

        No operator mixes samples, so nobody notices. Threads inside every operation, torch's own way, wait for each
        other thousands of times a step; on a busy machine they wait for whoever holds a core.
        """
        before, threads = torch.get_num_threads(), parts_of(count, device, together=together)
        if threads == 1:
            return [work(EVERYBODY)]
        together = together or 1
        bounds = [count // together * place // threads * together for place in range(threads + 1)]
        parts = [slice(*pair) for pair in pairwise(bounds)]
        run = partial(self._run, work, together, torch.is_grad_enabled())
        try:
            torch.set_num_threads(1)
            others = [_pool(before - 1).submit(run, part) for part in parts[1:]]
            try:
                first = run(parts[0])
            finally:
                wait(others)
            return [first, *(other.result() for other in others)]
        finally:
            torch.set_num_threads(before)

    def one_by_one(self, work: Callable[[int], Result], count: int) -> list[Result]:
        """`work` on each of `count`, on a CPU with one thread for each: its bits depend on neither others nor cores."""

        def of(part: slice) -> list[Result]:
            with one_thread():
                return [work(place) for place in range(count)[part]]

        return list(chain(*self.in_parts(of, count, torch.device("cpu"), together=1)))

    def _run(self, work: Callable[[slice], Result], together: int, with_gradients: bool, part: slice) -> Result:
        self._here.part, self._here.subjects = part, slice(part.start // together, part.stop // together)
        try:
            with torch.set_grad_enabled(with_gradients):
                return work(part)
        finally:
            self._here.part = self._here.subjects = EVERYBODY


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block, operations keep to one thread: the order of their sums depends on how many there are."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def parts_of(count: int, device: torch.device, *, together: int | None = None) -> int:
    """Into how many parts a batch of `count` is cut."""
    return min(torch.get_num_threads(), max(1, count // (together or ROWS_EACH))) if device.type == "cpu" else 1


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "part", initializer=partial(torch.set_num_threads, 1))
