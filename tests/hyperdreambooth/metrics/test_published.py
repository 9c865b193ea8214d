"""CLIP, DINO and FaceNet load from folders: tiny random ones in the real formats."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
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

from hyperdreambooth.faces import FaceDetector
from hyperdreambooth.metrics.face_judges import FacePanel
from hyperdreambooth.metrics.published import Clip, Dino, FaceNet

SMALL: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WORDS = ("<|startoftext|>", "<|endoftext|>", "<|unknown|>", "a</w>", "photo</w>", "sketch</w>")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    text = {**SMALL, "vocab_size": len(WORDS), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config={**SMALL, "image_size": 32, "patch_size": 16}, projection_dim=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], unk_token="<|unknown|>", model_max_length=77)
    image_processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def test_clip_embeds_images_and_prompts_in_one_space(clip_folder: Path, photo: Image.Image) -> None:
    clip = Clip(str(clip_folder))
    images = clip.images([photo, Image.new("RGB", (40, 40), "red")])
    prompts = clip.prompts(["a photo", "a sketch"])
    assert images.shape == prompts.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([images, prompts]), axis=1), 1, atol=1e-5)
    assert not np.allclose(prompts[0], prompts[1])
    assert not np.allclose(images[0], images[1])


def test_dino_reads_the_class_token(tmp_path: Path, photo: Image.Image) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=16)).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    features = Dino(str(tmp_path)).images([photo, photo.rotate(90)])
    assert features.shape == (2, 16)
    assert not np.allclose(features[0], features[1])


def test_facenet_judges_beside_the_others(tmp_path: Path, detector: FaceDetector, photo: Image.Image) -> None:
    """A network that averages each colour: the embedding is the face's mean colour, scaled and made unit length."""
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    node = helper.make_node("ReduceMean", ["face", "axes"], ["embedding"], keepdims=0)
    inputs = [helper.make_tensor_value_info("face", TensorProto.FLOAT, [1, 3, 160, 160])]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 3])]
    graph = helper.make_graph([node], "mean", inputs, outputs, [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "f.onnx")
    judged = FacePanel((FaceNet(tmp_path / "f.onnx"),), detector)(photo)
    assert judged is not None
    red, _, blue = judged["facenet"]
    assert red > blue  # skin
