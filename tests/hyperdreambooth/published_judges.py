"""The paper's judges as tiny random networks, in the real formats."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

SMALL: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WORDS = ("<|startoftext|>", "<|endoftext|>", "<|unknown|>", "a</w>", "photo</w>", "sketch</w>")


def write_clip(folder: Path) -> None:
    text = {**SMALL, "vocab_size": len(WORDS), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config={**SMALL, "image_size": 32, "patch_size": 16}, projection_dim=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], unk_token="<|unknown|>", model_max_length=77)
    image_processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)


def write_dino(folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=16)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def write_facenet(path: Path) -> None:
    """A network that averages each colour: the embedding is the face's mean colour, scaled and made unit length."""
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    node = helper.make_node("ReduceMean", ["face", "axes"], ["embedding"], keepdims=0)
    inputs = [helper.make_tensor_value_info("face", TensorProto.FLOAT, [1, 3, 160, 160])]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 3])]
    graph = helper.make_graph([node], "mean", inputs, outputs, [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
