"""Value noise: the smooth, repeatable randomness of skin, hair and paper."""

import numpy as np

from hyperdreambooth.portraits.arrays import Array


def value_noise(x: Array, y: Array, *, seed: int, frequency: float) -> Array:
    """Noise in 0..1 at any points; the same seed gives the same field at every call."""
    x, y = x * frequency + 1000, y * frequency + 1000  # away from negative cells
    column, row = x.astype(np.int64), y.astype(np.int64)
    along, down = _smoothstep(x - column), _smoothstep(y - row)
    top = _lattice(column, row, seed) * (1 - along) + _lattice(column + 1, row, seed) * along
    bottom = _lattice(column, row + 1, seed) * (1 - along) + _lattice(column + 1, row + 1, seed) * along
    return np.asarray(top * (1 - down) + bottom * down, np.float32)


def _smoothstep(t: Array) -> Array:
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _lattice(column: Array, row: Array, seed: int) -> Array:
    # A multiplicative hash of the cell; only its middle bits are used.
    mixed = (column * 374761393 + row * 668265263 + seed * 974711) ^ 0x5BF03635
    return np.asarray(((mixed * 1274126177) >> 7) % 1024 / np.float32(1024), np.float32)
