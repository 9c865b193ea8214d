"""A LiDB folded into a plain LoRA file, for every tool that reads LoRA. numpy and safetensors only, no torch.

ΔW = (A_aux A_train)(B_train B_aux): `up` [n, r] times `down` [r, m]. The paper's A is on the output side; PEFT calls
the input side `lora_A` and kohya `lora_down`. The swap happens here and nowhere else.
"""

import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from hyperdreambooth.adapter import Adapter
from hyperdreambooth.basis import LearnedAux, aux_source
from hyperdreambooth.errors import AuxMismatch
from hyperdreambooth.layers import KERNEL, module_name

Half = NDArray[np.float16]
Layers = Iterable[tuple[str, Half, Half]]
# transformers 5 dropped `text_model.` from its module names; in LoRA files it stays.
TEXT_PREFIX = "text_model."
FLAGS: dict[str, Any] = {"bias": "none", "use_dora": False, "use_rslora": False, "peft_type": "LORA"}


class LoraFormat(StrEnum):
    """Whose key names."""

    DIFFUSERS = "diffusers"
    KOHYA = "kohya"


def to_lora(adapter: Adapter, layout: LoraFormat, learned: LearnedAux | None = None) -> bytes:
    """The LoRA file: the same ΔW, without our aux matrices, in fp16. `learned` is what the base model's folder holds.

    AuxMismatch where the adapter was made with other learned aux matrices.
    """
    wanted = adapter.provenance.aux_sha256
    if wanted is not None and (learned is None or learned.sha256 != wanted):
        raise AuxMismatch(
            f"the adapter needs the learned aux matrices {wanted[:12]} of {adapter.provenance.base_model}"
        )
    layers = folded(adapter, learned if wanted is not None else None)
    match layout:
        case LoraFormat.DIFFUSERS:
            tensors, metadata = _diffusers(adapter, layers)
        case LoraFormat.KOHYA:
            tensors, metadata = _kohya(adapter, layers)
    return safetensors.numpy.save(tensors, metadata={"format": "pt", **metadata})


def folded(adapter: Adapter, learned: LearnedAux | None) -> Iterator[tuple[str, Half, Half]]:
    """Each layer's name, `up` [n, r] and `down` [r, m]; one at a time, since SD 1.5 has 27 M aux numbers.

    A convolution's are kernels: [n, r, 1, 1] and [r, inputs, 3, 3].
    """
    aux_of = aux_source(learned, adapter.provenance.aux_seed)
    for layer in adapter.table.layers:
        a_slice, b_slice = adapter.table.slices[layer.name]
        a_aux, b_aux = aux_of(layer)
        up = a_aux @ adapter.a_train[:, a_slice].T.astype(np.float32)
        down = adapter.b_train[:, b_slice].astype(np.float32) @ b_aux
        if layer.is_convolution:
            up, down = up[..., None, None], down.reshape(len(down), -1, KERNEL, KERNEL)
        yield layer.name, *_halved(up, down)


def _halved(up: NDArray[np.float32], down: NDArray[np.float32]) -> tuple[Half, Half]:
    """fp16; alpha equals the rank, so that readers scale by one."""
    return np.ascontiguousarray(up, np.float16), np.ascontiguousarray(down, np.float16)


def _diffusers(adapter: Adapter, layers: Layers) -> tuple[dict[str, Half], dict[str, str]]:
    """PEFT's names, and the metadata from which diffusers makes its LoraConfig."""
    tensors: dict[str, Half] = {}
    targets: dict[str, set[str]] = {"unet": set(), "text_encoder": set()}
    for name, up, down in layers:
        network, module = _place(name)
        targets[network].add(_last_name(module))
        tensors[f"{network}.{module}.lora_A.weight"] = down
        tensors[f"{network}.{module}.lora_B.weight"] = up
    rank = adapter.provenance.rank
    config = {
        f"{network}.{key}": value
        for network, names in targets.items()
        if names
        for key, value in {"r": rank, "lora_alpha": rank, "target_modules": sorted(names), **FLAGS}.items()
    }
    return tensors, {"lora_adapter_metadata": json.dumps(config, sort_keys=True)}


def _kohya(adapter: Adapter, layers: Layers) -> tuple[dict[str, Half], dict[str, str]]:
    """The names of kohya-ss/sd-scripts, which most other tools read, and its headers."""
    provenance = adapter.provenance
    tensors: dict[str, Half] = {}
    for name, up, down in layers:
        network, module = _place(name)
        prefix = "lora_unet_" if network == "unet" else "lora_te_"
        key = prefix + module.replace(".", "_")
        tensors |= {
            f"{key}.lora_down.weight": down,
            f"{key}.lora_up.weight": up,
            f"{key}.alpha": np.array(provenance.rank, np.float16),
        }
    return tensors, {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(provenance.rank),
        "ss_network_alpha": str(provenance.rank),
        "ss_sd_model_name": provenance.base_model,
        "ss_tag_frequency": json.dumps({"1_subject": {provenance.trigger: 1}}),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": provenance.trigger,
        "modelspec.trigger_phrase": provenance.trigger,
    }


def _last_name(module: str) -> str:
    """`to_q`, `to_out.0`, `fc1`: what PEFT matches; full names changed from one transformers to the next."""
    *_, parent, child = module.split(".")
    return f"{parent}.{child}" if child.isdecimal() else child


def _place(name: str) -> tuple[str, str]:
    """The network and the module that LoRA files name."""
    if name.startswith("unet."):
        return "unet", module_name(name)
    return "text_encoder", TEXT_PREFIX + module_name(name)
