"""The adapter file: one subject's train matrices and all that is needed to read them back. No torch.

safetensors with two flat fp16 tensors (400 small ones would cost a header of 52 kB) and one JSON document as metadata.
Format lidb/1 is what the paper has: attention layers, aux matrices drawn from a seed. lidb/2 may have convolutions, and
aux matrices that the base model's folder holds; a reader of lidb/1 alone must not take it for a face that it knows.
"""

import json
import struct
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from hyperdreambooth.basis import PROBE_TOLERANCE, probe, stream_hash
from hyperdreambooth.errors import AuxMismatch, NotAnAdapter, UnknownFormat, WrongBaseModel
from hyperdreambooth.layers import LayerTable

FORMAT, LEARNED_FORMAT = "lidb/1", "lidb/2"
MAX_FILE_BYTES = 64 << 20  # far above any adapter: a stranger's file is not read into memory further
HALF_MAX = float(np.finfo(np.float16).max)

Half = NDArray[np.float16]
Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What an adapter was made with."""

    base_model: str
    base_model_hash: str
    hypernetwork_hash: str | None  # None where the start knew nobody
    aux_seed: int
    aux_sha256: str | None = None  # of the base model's learned aux matrices; None where the seed draws them
    a: int
    b: int
    rank: int
    seed: int
    trigger: str  # the words that call the subject: "[V] face"
    method: str  # "hyperdreambooth", or "lidb" without a hypernetwork
    finetune: dict[str, float | int]


@dataclass(frozen=True, eq=False)
class Adapter:
    """A_train [r, sum of a] and B_train [r, sum of b] in the order of the layer table."""

    table: LayerTable
    a_train: Half
    b_train: Half
    provenance: Provenance

    @classmethod
    def pack(cls, table: LayerTable, a_train: Numbers, b_train: Numbers, provenance: Provenance) -> "Adapter":
        """Round to fp16, after giving |A| and |B| of each layer and rank the same size: their product alone matters."""
        a_train, b_train = a_train.astype(np.float64), b_train.astype(np.float64)
        for a_slice, b_slice in table.slices.values():
            a_norm = np.linalg.norm(a_train[:, a_slice], axis=1, keepdims=True)
            b_norm = np.linalg.norm(b_train[:, b_slice], axis=1, keepdims=True)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.where((a_norm > 0) & (b_norm > 0), np.sqrt(b_norm / a_norm), 1.0)
            a_train[:, a_slice] *= ratio
            b_train[:, b_slice] /= ratio
        return cls(table, _half(a_train), _half(b_train), provenance)

    @property
    def format(self) -> str:
        as_in_the_paper = self.provenance.aux_sha256 is None and not any(
            layer.is_convolution for layer in self.table.layers
        )
        return FORMAT if as_in_the_paper else LEARNED_FORMAT

    def to_bytes(self) -> bytes:
        """The file. Equal adapters give equal bytes (the safetensors library writes metadata in no fixed order)."""
        document = {
            "format": self.format,
            "layers": self.table.packed(),
            "layers_sha256": self.table.sha256,
            **asdict(self.provenance),
        }
        if self.provenance.aux_sha256 is None:
            seed = self.provenance.aux_seed
            document |= {"aux_stream": stream_hash(seed), "aux_probe": probe(self.table, seed)}
        a_bytes, b_bytes = self.a_train.tobytes(), self.b_train.tobytes()
        header = {
            "__metadata__": {"format": self.format, "lidb": _json(document)},
            "a_train": _entry(self.a_train, 0, len(a_bytes)),
            "b_train": _entry(self.b_train, len(a_bytes), len(a_bytes) + len(b_bytes)),
        }
        text = _json(header).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + a_bytes + b_bytes

    @classmethod
    def from_bytes(cls, content: bytes) -> "Adapter":
        """Read a file back, and make sure that this machine draws the same aux matrices."""
        document, tensors = _parse(content)
        try:
            table = LayerTable.unpacked(document["layers"])
            document.setdefault("aux_sha256", None)  # files older than learned aux matrices
            provenance = Provenance(**{entry.name: document[entry.name] for entry in fields(Provenance)})
            seed, a_train, b_train = provenance.aux_seed, tensors["a_train"], tensors["b_train"]
            drawn_alike = provenance.aux_sha256 is not None or (
                document["aux_stream"] == stream_hash(seed)
                and np.allclose(document["aux_probe"], probe(table, seed), rtol=0, atol=PROBE_TOLERANCE)
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise NotAnAdapter(f"the header is incomplete: {error!r}") from error
        _check_numbers(table, a_train, b_train, rank=provenance.rank)
        if table.sha256 != document.get("layers_sha256"):
            raise NotAnAdapter("the layer table is not the one the header names")
        if not drawn_alike:
            raise AuxMismatch("this machine draws other aux matrices than the one that made the adapter")
        return cls(table, a_train, b_train, provenance)

    def check_fits(self, *, base_model_hash: str, table: LayerTable, aux_seed: int, aux_sha256: str | None) -> None:
        """WrongBaseModel unless these are the weights and aux matrices it was made for."""
        own = self.provenance
        made_for = (own.base_model_hash, self.table.sha256, own.aux_seed, own.aux_sha256)
        if made_for != (base_model_hash, table.sha256, aux_seed, aux_sha256):
            raise WrongBaseModel(f"the adapter was made for {self.provenance.base_model} and other weights")


def _parse(content: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    if len(content) > MAX_FILE_BYTES:
        raise NotAnAdapter("far too large")
    try:
        tensors = safetensors.numpy.load(content)
        (length,) = struct.unpack("<Q", content[:8])
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        found = metadata["format"]
        document = json.loads(metadata["lidb"]) if found in (FORMAT, LEARNED_FORMAT) else {}
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise NotAnAdapter("not a safetensors file with a LiDB in it") from error
    if found not in (FORMAT, LEARNED_FORMAT):
        raise UnknownFormat(f"format {found!r} is neither {FORMAT} nor {LEARNED_FORMAT}")
    if not isinstance(document, dict):
        raise NotAnAdapter("the header is no document")
    return document, tensors


def _check_numbers(table: LayerTable, a_train: NDArray[Any], b_train: NDArray[Any], *, rank: int) -> None:
    wanted = [(rank, table.total_a), (rank, table.total_b)]
    if [a_train.shape, b_train.shape] != wanted or {a_train.dtype, b_train.dtype} != {np.dtype(np.float16)}:
        raise NotAnAdapter(f"train matrices of {a_train.shape} and {b_train.shape} don't fit the layer table")
    if not (np.isfinite(a_train).all() and np.isfinite(b_train).all()):
        raise NotAnAdapter("train matrices hold numbers that are not finite")


def _half(numbers: Numbers) -> Half:
    return np.clip(numbers, -HALF_MAX, HALF_MAX).astype(np.float16)


def _entry(tensor: Half, start: int, stop: int) -> dict[str, Any]:
    return {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [start, stop]}


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))
