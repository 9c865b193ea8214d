from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from hyperdreambooth.attach import layer_table
from hyperdreambooth.config import LiDBConfig
from hyperdreambooth.layers import LayerTable, module_name, text_layer_name, unet_layer_name
from hyperdreambooth.targets import target_layers


@pytest.fixture(scope="module")
def stable_diffusion() -> tuple[nn.Module, nn.Module]:
    """Stable Diffusion 1.5 by its published configs, without its weights."""
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            cross_attention_dim=768,
            attention_head_dim=8,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
                max_position_embeddings=77,
            )
        )
    return unet, text_encoder


def test_stable_diffusion_has_200_layers_and_30_000_numbers(
    stable_diffusion: tuple[nn.Module, nn.Module],
) -> None:
    # Paper, section 4.1: about 30 K numbers, 120 KB in float32.
    table = layer_table(*stable_diffusion, LiDBConfig(a=100, b=50))
    names = [layer.name for layer in table.layers]
    assert len(names) == 200
    assert sum(name.startswith("unet.") for name in names) == 128
    assert sum(name.startswith("text.") for name in names) == 72
    assert table.total_a + table.total_b == 30_000


def test_every_name_leads_back_to_its_module(
    stable_diffusion: tuple[nn.Module, nn.Module],
) -> None:
    unet, text_encoder = stable_diffusion
    for name, linear in target_layers(unet, text_encoder).items():
        network = unet if name.startswith("unet.") else text_encoder
        assert network.get_submodule(module_name(name)) is linear


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k", "unet.down.0.1.cross.k"),
        ("mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0", "unet.mid.0.self.out"),
        ("up_blocks.3.attentions.2.transformer_blocks.1.attn1.to_q", "unet.up.3.2.1.self.q"),
        ("mid_block.attentions.0.transformer_blocks.9.attn1.to_v", "unet.mid.0.9.self.v"),
        ("down_blocks.0.attentions.1.transformer_blocks.0.ff.net.2", None),
        ("down_blocks.0.resnets.0.conv1", "unet.down.0.0.conv.in"),
        ("mid_block.resnets.1.conv2", "unet.mid.1.conv.out"),
        ("up_blocks.3.resnets.2.conv1", "unet.up.3.2.conv.in"),
        ("up_blocks.0.resnets.0.conv_shortcut", None),
        ("down_blocks.0.downsamplers.0.conv", None),
    ],
)
def test_modules_of_the_unet_have_stable_names(module: str, name: str | None) -> None:
    assert unet_layer_name(module) == name
    assert name is None or module_name(name) == module


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_names_of_the_text_encoder_survive_its_renaming(prefix: str) -> None:
    assert text_layer_name(f"{prefix}encoder.layers.3.mlp.fc1") == "text.3.mlp.in"
    assert text_layer_name(f"{prefix}encoder.layers.11.self_attn.out_proj") == "text.11.self.out"
    assert text_layer_name(f"{prefix}embeddings.token_embedding") is None
    assert module_name("text.11.self.out") == "encoder.layers.11.self_attn.out_proj"


def test_the_order_of_the_table_is_that_of_the_names_not_of_the_library() -> None:
    shapes = [("text.10.self.q", 8, 8), ("unet.up.0.0.self.q", 8, 8), ("text.2.self.q", 8, 8)]
    table = LayerTable.of(shapes, a=4, b=2)
    assert [layer.name for layer in table.layers] == ["text.2.self.q", "text.10.self.q", "unet.up.0.0.self.q"]
    assert table == LayerTable.of(shapes[::-1], a=4, b=2)


def test_a_narrow_layer_gets_a_narrow_lidb() -> None:
    (layer,) = LayerTable.of([("text.0.mlp.in", 30, 20)], a=100, b=50).layers
    assert (layer.a, layer.b) == (30, 20)


def test_a_packed_table_unpacks_to_itself() -> None:
    table = LayerTable.of([("text.0.mlp.in", 30, 20), ("text.0.mlp.out", 20, 30)], a=10, b=5)
    assert LayerTable.unpacked(table.packed()) == table
    assert LayerTable.unpacked(table.packed()).sha256 == table.sha256


@given(st.text(max_size=60))
def test_anything_else_unpacks_to_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="layer"):
        LayerTable.unpacked(text)


def test_a_table_that_would_fill_the_memory_is_refused() -> None:
    monstrous = LayerTable.of([("text.0.mlp.in", 10**9, 10**9)], a=10**9, b=1)
    with pytest.raises(ValueError, match="impossible size"):
        LayerTable.unpacked(monstrous.packed())
