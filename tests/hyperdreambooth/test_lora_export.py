import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from hyperdreambooth.adapter import Adapter
from hyperdreambooth.attach import attach
from hyperdreambooth.basis import aux_matrices
from hyperdreambooth.config import SampleConfig
from hyperdreambooth.diffusion import BaseModel, load_base_model, sample
from hyperdreambooth.lidb import LiDB
from hyperdreambooth.lora_export import LoraFormat, folded, to_lora
from tests.hyperdreambooth.conftest import CPU, random_lidb
from tests.hyperdreambooth.test_adapter import PROVENANCE, TABLE, make_adapter


def test_the_fold_is_the_same_delta() -> None:
    adapter = make_adapter()
    for name, up, down in folded(adapter, None):
        layer = next(layer for layer in TABLE.layers if layer.name == name)
        a_slice, b_slice = TABLE.slices[name]
        a_aux, b_aux = aux_matrices(layer, PROVENANCE.aux_seed)
        a_train, b_train = (train.astype(np.float32) for train in (adapter.a_train, adapter.b_train))
        delta = a_aux @ a_train[:, a_slice].T @ b_train[:, b_slice] @ b_aux
        # fp16 has 11 bits; the two factors' errors add up over rank 2.
        np.testing.assert_allclose(up.astype(np.float32) @ down.astype(np.float32), delta, atol=4e-3 * abs(delta).max())


@pytest.mark.parametrize(
    ("layout", "keys"),
    [
        (
            LoraFormat.DIFFUSERS,
            {
                "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight": (2, 20),
                "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_B.weight": (30, 2),
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight": (2, 16),
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight": (24, 2),
            },
        ),
        (
            LoraFormat.KOHYA,
            {
                "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": (),
                "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (2, 20),
                "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (30, 2),
                "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.alpha": (),
                "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight": (2, 16),
                "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight": (24, 2),
            },
        ),
    ],
)
def test_keys_are_those_of_the_format(layout: LoraFormat, keys: dict[str, tuple[int, ...]]) -> None:
    adapter = make_adapter(rank=2)
    tensors = safetensors.numpy.load(to_lora(adapter, layout))
    assert {key: tensor.shape for key, tensor in tensors.items()} == keys
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float16)}


def test_headers_say_what_other_tools_look_for(tmp_path: Path) -> None:
    for layout in LoraFormat:
        (tmp_path / layout).write_bytes(to_lora(make_adapter(), layout))
    with safetensors.safe_open(tmp_path / LoraFormat.KOHYA, "np") as kohya:
        assert kohya.metadata()["ss_network_dim"] == kohya.metadata()["ss_network_alpha"] == "2"
        assert kohya.metadata()["modelspec.trigger_phrase"] == "[V] face"
    with safetensors.safe_open(tmp_path / LoraFormat.DIFFUSERS, "np") as diffusers:
        config = json.loads(diffusers.metadata()["lora_adapter_metadata"])
    assert (config["unet.r"], config["text_encoder.lora_alpha"]) == (2, 2)


def draw(base_model: BaseModel) -> NDArray[np.int16]:
    """One picture, as signed levels of 255."""
    config = SampleConfig(steps=4, guidance=2.0)
    return np.asarray(sample(base_model, ["a photo of [V] face"], seeds=[3], config=config)[0]).astype(np.int16)


@pytest.mark.parametrize("layout", LoraFormat)
def test_diffusers_draws_the_picture_that_we_draw(tiny_folder: Path, tmp_path: Path, layout: LoraFormat) -> None:
    base_model = load_base_model(str(tiny_folder), device=CPU, dtype=torch.float32)
    lidb = random_lidb(base_model, subjects=1, rank=2)
    lidb = LiDB(lidb.basis, lidb.a_train * 0.5, lidb.b_train * 0.5)  # or fp16's rounding is seen in convolutions
    a_train, b_train = (train[0].double().numpy() for train in (lidb.a_train, lidb.b_train))
    adapter = Adapter.pack(lidb.basis.table, a_train, b_train, PROVENANCE)
    without = draw(base_model)
    with attach(base_model, lidb):
        ours = draw(base_model)

    names = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
    parts: dict[str, Any] = {name: getattr(base_model, name) for name in names}
    pipeline: Any = StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    (tmp_path / "lora.safetensors").write_bytes(to_lora(adapter, layout))
    pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    theirs = draw(base_model)

    # fp16 rounds the factors to 11 bits; without the LoRA the picture is another.
    assert abs(ours - without).mean() > 5
    assert abs(ours - theirs).mean() < 1
    pipeline.unload_lora_weights()
    np.testing.assert_array_equal(draw(base_model), without)
