import json
import struct
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTextConfig, CLIPTextModel

from hyperdreambooth import adapter as adapter_module
from hyperdreambooth.adapter import Adapter, Provenance
from hyperdreambooth.attach import layer_table
from hyperdreambooth.config import FinetuneConfig, LiDBConfig
from hyperdreambooth.errors import AdapterError, AuxMismatch, NotAnAdapter, UnknownFormat, WrongBaseModel
from hyperdreambooth.layers import LayerKind, LayerTable

TABLE = LayerTable.of([("text.0.mlp.in", 30, 20), ("unet.mid.0.self.q", 24, 16)], a=12, b=6)
PROVENANCE = Provenance(
    base_model="tiny",
    base_model_hash="ab" * 32,
    hypernetwork_hash="cd" * 32,
    aux_seed=0,
    a=12,
    b=6,
    rank=2,
    seed=7,
    trigger="[V] face",
    method="hyperdreambooth",
    finetune={"steps": 40, "learning_rate": 0.002},
)


def make_adapter(table: LayerTable = TABLE, **changes: Any) -> Adapter:  # noqa: ANN401 - fields of a Provenance
    provenance = replace(PROVENANCE, **changes)
    random = np.random.default_rng(0)
    a_train, b_train = (random.normal(size=(provenance.rank, total)) for total in (table.total_a, table.total_b))
    return Adapter.pack(table, a_train, b_train * 0.01, provenance)


def with_document(content: bytes, *, lacking: str = "", **changes: Any) -> bytes:  # noqa: ANN401 - JSON
    """The same file with another header."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    document = json.loads(header["__metadata__"]["lidb"]) | changes
    document.pop(lacking, None)
    header["__metadata__"]["lidb"] = json.dumps(document)
    header["__metadata__"]["format"] = document["format"]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def test_an_adapter_survives_its_file() -> None:
    adapter = make_adapter()
    read = Adapter.from_bytes(adapter.to_bytes())
    assert read.provenance == adapter.provenance
    assert read.table == adapter.table
    np.testing.assert_array_equal(read.a_train, adapter.a_train)
    np.testing.assert_array_equal(read.b_train, adapter.b_train)


def test_equal_adapters_are_equal_files_in_every_process() -> None:
    program = "from tests.hyperdreambooth.test_adapter import make_adapter; print(make_adapter().to_bytes().hex())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == make_adapter().to_bytes().hex()


def test_a_finetuned_subject_of_stable_diffusion_takes_at_most_120_kib() -> None:
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        )
    names = {"base_model": "stable-diffusion-v1-5/stable-diffusion-v1-5", "finetune": asdict(FinetuneConfig())}
    table = layer_table(unet, text_encoder, LiDBConfig(a=100, b=50))
    content = make_adapter(table, a=100, b=50, rank=2, **names).to_bytes()
    assert 120_000 < len(content) <= 122_880

    table = layer_table(unet, text_encoder, LiDBConfig(layers=(LayerKind.CONVOLUTION,), a=92, b=78))
    content = make_adapter(table, a=92, b=78, rank=8, aux_sha256="ef" * 32, **names).to_bytes()
    assert 117_000 < len(content) <= 122_880


def test_packing_balances_both_sides_and_keeps_their_product() -> None:
    random = np.random.default_rng(0)
    a_train, b_train = random.normal(size=(2, TABLE.total_a)) * 1e6, random.normal(size=(2, TABLE.total_b)) * 1e-7
    adapter = Adapter.pack(TABLE, a_train, b_train, PROVENANCE)
    for a_slice, b_slice in TABLE.slices.values():
        kept = adapter.a_train[:, a_slice].astype(float).T @ adapter.b_train[:, b_slice].astype(float)
        product = a_train[:, a_slice].T @ b_train[:, b_slice]
        # fp16 keeps 11 bits: 2 roundings of 2^-11 each.
        assert np.linalg.norm(kept - product) <= 2**-10 * np.linalg.norm(product)


def test_packing_leaves_a_zero_delta_zero() -> None:
    adapter = Adapter.pack(TABLE, np.zeros((2, TABLE.total_a)), np.ones((2, TABLE.total_b)), PROVENANCE)
    assert not adapter.a_train.any()
    assert (adapter.b_train == 1).all()


@pytest.mark.parametrize("content", [b"", b"not a file", b"\x08" + b"\0" * 7 + b"{}      ", b"\xff" * 64])
def test_other_bytes_are_no_adapter(content: bytes) -> None:
    with pytest.raises(NotAnAdapter):
        Adapter.from_bytes(content)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_raises_a_named_error_or_reads_the_same_shapes(data: st.DataObject) -> None:
    content = bytearray(make_adapter().to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        adapter = Adapter.from_bytes(bytes(content))
    except AdapterError:
        return
    assert adapter.a_train.shape == (adapter.provenance.rank, adapter.table.total_a)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"format": "lidb/3"}, UnknownFormat),
        ({"aux_stream": "0" * 16}, AuxMismatch),
        ({"aux_probe": [0.5] * 8}, AuxMismatch),
        ({"aux_probe": [0.5]}, AuxMismatch),
        ({"layers_sha256": "0" * 64}, NotAnAdapter),
        ({"layers": "nothing"}, NotAnAdapter),
        ({"rank": 3}, NotAnAdapter),
        ({"aux_seed": "zero"}, AuxMismatch),
    ],
)
def test_each_wrong_header_has_its_own_error(changes: dict[str, Any], error: type[AdapterError]) -> None:
    with pytest.raises(error):
        Adapter.from_bytes(with_document(make_adapter().to_bytes(), **changes))


def test_numbers_that_are_not_finite_are_refused() -> None:
    adapter = make_adapter()
    adapter.a_train[0, 0] = np.inf
    with pytest.raises(NotAnAdapter, match="finite"):
        Adapter.from_bytes(adapter.to_bytes())


def test_an_adapter_fits_the_weights_it_was_made_for_and_no_others() -> None:
    adapter = make_adapter()
    fitting: dict[str, Any] = {"base_model_hash": "ab" * 32, "table": TABLE, "aux_seed": 0, "aux_sha256": None}
    adapter.check_fits(**fitting)
    for other in ({"base_model_hash": "00" * 32}, {"aux_seed": 1}, {"aux_sha256": "ef" * 32}):
        with pytest.raises(WrongBaseModel):
            adapter.check_fits(**(fitting | other))


def test_a_file_older_than_learned_aux_matrices_is_read() -> None:
    assert make_adapter().format == "lidb/1"
    older = with_document(make_adapter().to_bytes(), lacking="aux_sha256")
    assert Adapter.from_bytes(older).provenance == make_adapter().provenance


def test_learned_aux_matrices_and_convolutions_have_a_format_that_older_readers_refuse() -> None:
    learned = make_adapter(aux_sha256="ef" * 32)
    with_convolution = make_adapter(LayerTable.of([("unet.mid.0.conv.in", 24, 144)], a=12, b=6))
    for adapter in (learned, with_convolution):
        assert adapter.format == "lidb/2"
        assert Adapter.from_bytes(adapter.to_bytes()).provenance == adapter.provenance


def test_adapter_files_open_without_torch() -> None:
    program = f"import sys, {adapter_module.__name__}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
