"""The adapters drawn with lately, ready on the device: to change the subject is to take another row."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch

from hyperdreambooth.adapter import Adapter
from hyperdreambooth.lidb import AuxBasis, GroupedLiDB

Owner = TypeVar("Owner")
KEPT_SECONDS = 900
CAPACITY = 10_000  # 1.2 GB for Stable Diffusion 1.x at rank 2


class Resident:
    """Train matrices in half precision, as their files hold them; the one unused for longest makes room."""

    def __init__(self, basis: AuxBasis, *, capacity: int = CAPACITY) -> None:
        self.basis = basis
        self.capacity = capacity
        self._rows: OrderedDict[Adapter, int] = OrderedDict()
        self._free: list[int] = []
        self._grouping = basis.grouping.cpu()
        numbers = len(self._grouping)
        self._numbers = torch.empty(0, 1, numbers, dtype=torch.float16, device=basis.device)  # [rows, r, numbers]

    def __len__(self) -> int:
        return len(self._rows)

    def lidb(self, adapters: Sequence[Adapter]) -> GroupedLiDB:
        """Adapters of any ranks as one batch; a smaller rank is filled up with zeros, which add nothing."""
        assert len(set(adapters)) <= self.capacity, len(adapters)
        rows = torch.tensor([self._row(adapter) for adapter in adapters], device=self.basis.device)
        rank = max(adapter.provenance.rank for adapter in adapters)
        return GroupedLiDB(self.basis, self._numbers.index_select(0, rows)[:, :rank].to(self.basis.dtype))

    def forget(self, adapter: Adapter) -> None:
        """Its row is free, and empty."""
        row = self._rows.pop(adapter, None)
        if row is not None:
            self._numbers[row] = 0
            self._free.append(row)

    def _row(self, adapter: Adapter) -> int:
        if adapter in self._rows:
            self._rows.move_to_end(adapter)
            return self._rows[adapter]
        if len(self._rows) == self.capacity:
            self.forget(next(iter(self._rows)))
        rank = adapter.provenance.rank
        if not self._free or rank > self._numbers.shape[1]:
            self._grow(rank)
        row = self._rows[adapter] = self._free.pop()
        trains = torch.from_numpy(np.concatenate([adapter.a_train, adapter.b_train], axis=1))
        self._numbers[row] = 0
        self._numbers[row, :rank] = trains[:, self._grouping].to(self._numbers)
        return row

    def _grow(self, rank: int) -> None:
        """Twice the rows, up to the capacity, where none is free; and as many ranks as asked for."""
        rows, ranks, total = self._numbers.shape
        wanted = rows if self._free else min(self.capacity, max(8, 2 * rows))
        grown = self._numbers.new_zeros(wanted, max(rank, ranks), total)
        grown[:rows, :ranks] = self._numbers
        self._numbers = grown
        self._free += range(rows, wanted)


@dataclass(frozen=True)
class _Recent(Generic[Owner]):
    used: float
    owner: Owner
    adapter: Adapter


class RecentFiles(Generic[Owner]):
    """Files read lately, by their hash: a second generation finds the subject's weights on the device already.

    What was not asked for within `KEPT_SECONDS` is forgotten at the next reading or forgetting: nobody stays for long.
    """

    def __init__(self, resident: Resident, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._resident = resident
        self._clock = clock
        self._read: dict[bytes, _Recent[Owner]] = {}  # the one unused for longest is first

    def owners(self) -> set[Owner]:
        """Whose files are remembered."""
        return {recent.owner for recent in self._read.values()}

    def read(self, content: bytes, owner: Owner) -> Adapter:
        """The adapter in somebody's file; AdapterError if there is none."""
        key = hashlib.sha256(content).digest()
        found = self._read.pop(key, None)
        adapter = Adapter.from_bytes(content) if found is None else found.adapter
        self._read[key] = _Recent(self._clock(), owner, adapter)
        self._forget_old()
        return adapter

    def forget(self, owners: Collection[Owner]) -> None:
        """Nothing of theirs stays, nor what is old."""
        for key in [key for key, recent in self._read.items() if recent.owner in owners]:
            self._drop(key)
        self._forget_old()

    def _forget_old(self) -> None:
        now = self._clock()
        for key, recent in list(self._read.items()):
            if recent.used + KEPT_SECONDS > now and len(self._read) <= self._resident.capacity:
                break
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        self._resident.forget(self._read.pop(key).adapter)
