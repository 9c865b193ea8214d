"""The aux matrices A_aux and B_aux: frozen, semi-orthogonal, shared by all subjects. numpy only.

Where a base model's folder holds none, they are random and never stored. Learned ones (`learned_basis.py`) lie there in
a file of their own, and an adapter names its hash.

A stored adapter must open for years and on any machine, so each matrix comes from a stream that is fixed by contract:
numpy's legacy `RandomState`, seeded with a hash of (seed, layer name, side). It depends on no order of layers.
QR differs in the last bits between BLAS builds; hence two checks, an exact one of the stream and a tolerant one of the
matrices.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from hyperdreambooth.errors import AuxMismatch
from hyperdreambooth.layers import LayerShape, LayerTable

Matrix = NDArray[np.float32]
PROBE_TOLERANCE = 1e-4  # last-bit differences stay below 1e-6; other matrices differ by 1e-2 and more
PROBED_LAYERS = 4
LEARNED_FILE = "aux_basis.safetensors"  # beside model_index.json

Drawing = Callable[[LayerShape], tuple[Matrix, Matrix]]


@dataclass(frozen=True, eq=False)
class LearnedAux:
    """Aux matrices from a file. It may hold wider ones than are asked for: the first columns weigh most."""

    matrices: Mapping[str, NDArray[np.float16]]  # "<layer>.a" [n, a] and "<layer>.b" [b, m]
    sha256: str

    def __call__(self, layer: LayerShape) -> tuple[Matrix, Matrix]:
        """A_aux [n, a] and B_aux [b, m]; AuxMismatch where the file knows no such layer."""
        try:
            a_aux, b_aux = self.matrices[f"{layer.name}.a"], self.matrices[f"{layer.name}.b"]
        except KeyError as error:
            raise AuxMismatch(f"the learned aux matrices have no layer {layer.name}") from error
        if a_aux.shape[0] != layer.n or b_aux.shape[1] != layer.m or a_aux.shape[1] < layer.a or len(b_aux) < layer.b:
            raise AuxMismatch(f"the learned aux matrices of {layer.name} are {a_aux.shape} and {b_aux.shape}")
        return a_aux[:, : layer.a].astype(np.float32), b_aux[: layer.b].astype(np.float32)


def load_learned(folder: Path) -> LearnedAux | None:
    """The base model's own aux matrices; None where they are to be drawn."""
    path = folder / LEARNED_FILE
    if not path.is_file():
        return None
    content = path.read_bytes()
    return LearnedAux(safetensors.numpy.load(content), hashlib.sha256(content).hexdigest())


def save_learned(matrices: Mapping[str, Matrix], folder: Path) -> None:
    """The inverse, in half precision."""
    halves = {name: np.ascontiguousarray(matrix, np.float16) for name, matrix in matrices.items()}
    safetensors.numpy.save_file(halves, folder / LEARNED_FILE)


def aux_source(learned: LearnedAux | None, seed: int) -> Drawing:
    """Where a basis takes its aux matrices from."""
    return learned or partial(aux_matrices, seed=seed)


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
