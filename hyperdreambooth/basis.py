"""The aux matrices A_aux and B_aux: frozen, random, semi-orthogonal, never stored. numpy only.

A stored adapter must open for years and on any machine, so each matrix comes from a stream that is fixed by contract:
numpy's legacy `RandomState`, seeded with a hash of (seed, layer name, side). It depends on no order of layers.
QR differs in the last bits between BLAS builds; hence two checks, an exact one of the stream and a tolerant one of the
matrices.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from hyperdreambooth.layers import LayerShape, LayerTable

Matrix = NDArray[np.float32]
PROBE_TOLERANCE = 1e-4  # last-bit differences stay below 1e-6; other matrices differ by 1e-2 and more
PROBED_LAYERS = 4


def aux_matrices(layer: LayerShape, seed: int) -> tuple[Matrix, Matrix]:
    """A_aux [n, a] with orthonormal columns and B_aux [b, m] with orthonormal rows, so that |ΔW| = |A_train B_train|.

    The paper (section 4.1) says "row-wise orthogonal", which an A_aux with n > a cannot be.
    """
    a_aux = _orthonormal_columns(_stream(seed, layer.name, "a"), layer.n, layer.a)
    b_aux = _orthonormal_columns(_stream(seed, layer.name, "b"), layer.m, layer.b).T
    return a_aux, np.ascontiguousarray(b_aux)


def shared_b_train(layer: LayerShape, seed: int) -> Matrix:
    """Standard normal numbers [b] for B_train where no hypernetwork knows better: the same for every subject."""
    return _stream(seed, layer.name, "start").standard_normal(layer.b).astype(np.float32)


def stream_hash(seed: int) -> str:
    """What the stream's bits are on this machine: equal everywhere, or stored adapters cannot be read here."""
    return hashlib.sha256(_stream(seed, "probe", "a").bytes(1024)).hexdigest()[:16]


def probe(table: LayerTable, seed: int) -> list[float]:
    """A few entries of a few aux matrices, to be compared with PROBE_TOLERANCE."""
    spread = np.linspace(0, len(table.layers) - 1, PROBED_LAYERS).round().astype(int)
    entries = []
    for index in spread:
        a_aux, b_aux = aux_matrices(table.layers[index], seed)
        entries += [a_aux[0, -1], b_aux[-1, 0]]
    return [round(float(entry), 6) for entry in entries]


def _stream(seed: int, name: str, side: str) -> np.random.RandomState:
    digest = hashlib.sha256(f"{seed}/{name}/{side}".encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4"))


def _orthonormal_columns(stream: np.random.RandomState, rows: int, columns: int) -> Matrix:
    """Q of a Gaussian's QR; with a positive diagonal of R it is unique, whichever library computes it."""
    q, r = np.linalg.qr(stream.standard_normal((rows, columns)))
    return np.ascontiguousarray(q * np.sign(np.diag(r)), np.float32)
