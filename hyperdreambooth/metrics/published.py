"""The paper's own judges, where somebody has their weights: CLIP-I, CLIP-T, DINO, and FaceNet.

No package ships these weights. Each is loaded from a folder or a hub id in the format of transformers; FaceNet
(Inception-ResNet on VGGFace2), which transformers doesn't have, from an ONNX file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel, CLIPModel, CLIPProcessor

from hyperdreambooth.faces import SFACE_TEMPLATE, Face, warp_to

Numbers = NDArray[np.float32]
FACENET_SIDE = 160  # Schroff et al. 2015; the released Inception-ResNets see 160 pixels, (x - 127.5) / 128


class Clip:
    """CLIP-I and CLIP-T (Radford et al. 2021): cosines between images, and between image and prompt."""

    def __init__(self, folder_or_hub_id: str) -> None:
        network: Any = CLIPModel  # carries no types
        self._network = network.from_pretrained(folder_or_hub_id).eval()
        self._processor = CLIPProcessor.from_pretrained(folder_or_hub_id)

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Numbers:
        inputs = self._processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
        pooled = self._network.vision_model(pixel_values=inputs["pixel_values"]).pooler_output
        return _unit(self._network.visual_projection(pooled))

    @torch.no_grad()
    def prompts(self, prompts: Sequence[str]) -> Numbers:
        inputs = self._processor(text=list(prompts), padding=True, truncation=True, return_tensors="pt")
        pooled = self._network.text_model(**inputs).pooler_output
        return _unit(self._network.text_projection(pooled))


class Dino:
    """DINO (Caron et al. 2021): the class token of the last layer."""

    def __init__(self, folder_or_hub_id: str) -> None:
        image_processor: Any = AutoImageProcessor  # its `from_pretrained` carries no types
        self._network = AutoModel.from_pretrained(folder_or_hub_id).eval()
        self._processor = image_processor.from_pretrained(folder_or_hub_id)

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Numbers:
        inputs = self._processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
        return _unit(self._network(pixel_values=inputs["pixel_values"]).last_hidden_state[:, 0])


class FaceNet:
    """FaceNet from an ONNX file with one picture as input [1, 3, 160, 160] and one embedding as output."""

    name = "facenet"

    def __init__(self, file: Path) -> None:
        self._network = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self._input = self._network.get_inputs()[0].name

    def embed(self, image: Image.Image, face: Face) -> Numbers:
        """The face alone fills the frame, as in the detector's crops that the network was trained on."""
        template = (SFACE_TEMPLATE - 56) * (FACENET_SIDE / 112) + FACENET_SIDE / 2
        crop = warp_to(image.convert("RGB"), face.points, template, size=FACENET_SIDE)
        pixels = (np.asarray(crop, np.float32).transpose(2, 0, 1)[None] - 127.5) / 128
        (embedding,) = self._network.run(None, {self._input: pixels})[0]
        return np.asarray(embedding / np.linalg.norm(embedding), np.float32)


def _unit(numbers: Tensor) -> Numbers:
    return np.asarray(F.normalize(numbers, dim=-1).numpy(), np.float32)
