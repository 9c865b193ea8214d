"""The adapters drawn with lately, ready on the device: to change the subject is to take another row."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch

from hyperdreambooth.adapter import Adapter
from hyperdreambooth.lidb import AuxBasis, LiDB

KEPT_SECONDS = 900
CAPACITY = 10_000  # 1.2 GB for Stable Diffusion 1.x at rank 2


class Resident:
    """Train matrices in half precision, as their files hold them; the one unused for longest makes room."""

    def __init__(self, basis: AuxBasis, *, capacity: int = CAPACITY) -> None:
        self.basis = basis
        self.capacity = capacity
        self._rows: OrderedDict[Adapter, int] = OrderedDict()
        self._free: list[int] = []
        total = basis.table.total_a + basis.table.total_b
        self._numbers = torch.empty(0, 1, total, dtype=torch.float16, device=basis.device)  # [rows, r, numbers]

    def __len__(self) -> int:
        return len(self._rows)

    def lidb(self, adapters: Sequence[Adapter]) -> LiDB:
        """Adapters of any ranks as one batch; a smaller rank is filled up with zeros, which add nothing."""
        assert len(set(adapters)) <= self.capacity, len(adapters)
        rows = torch.tensor([self._row(adapter) for adapter in adapters], device=self.basis.device)
        rank = max(adapter.provenance.rank for adapter in adapters)
        numbers = self._numbers[rows, :rank].to(self.basis.dtype)
        a_train, b_train = numbers.tensor_split([self.basis.table.total_a], dim=2)
        return LiDB(self.basis, a_train, b_train)

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
        self._numbers[row, :rank] = trains.to(self._numbers)
        return row

    def _grow(self, rank: int) -> None:
        """Twice the rows, up to the capacity, where none is free; and as many ranks as asked for."""
        rows, ranks, total = self._numbers.shape
        wanted = rows if self._free else min(self.capacity, max(8, 2 * rows))
        grown = self._numbers.new_zeros(wanted, max(rank, ranks), total)
        grown[:rows, :ranks] = self._numbers
        self._numbers = grown
        self._free += range(rows, wanted)


class RecentFiles:
    """Files read lately, by their hash: a second generation finds the subject's weights on the device already.

    What was not asked for within `KEPT_SECONDS` is forgotten at the next reading: nobody stays here for long.
    """

    def __init__(self, resident: Resident, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._resident = resident
        self._clock = clock
        self._read: dict[bytes, tuple[float, Adapter]] = {}  # the one unused for longest is first

    def read(self, content: bytes) -> Adapter:
        """The adapter in a file; AdapterError if there is none."""
        key, now = hashlib.sha256(content).digest(), self._clock()
        found = self._read.pop(key, None)
        adapter = Adapter.from_bytes(content) if found is None else found[1]
        self._read[key] = (now, adapter)
        for old, (used, unused) in list(self._read.items()):
            if used + KEPT_SECONDS > now and len(self._read) <= self._resident.capacity:
                break
            del self._read[old]
            self._resident.forget(unused)
        return adapter
