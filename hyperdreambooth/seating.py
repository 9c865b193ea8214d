"""Who sits where in a batch. Set by whoever puts a batch together, read by the deltas in every target layer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


class Seating(threading.local):
    """Which subject each row of the networks' input belongs to. Threads seat their own batches."""

    rows: Tensor | None = None  # [B]; None where a batch holds equally many neighbouring rows of each subject

    @contextmanager
    def seated(self, rows: Tensor | None) -> Iterator[None]:
        """Within the block, `rows` says whose each row is."""
        before, self.rows = self.rows, rows
        try:
            yield
        finally:
            self.rows = before
