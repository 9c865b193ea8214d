"""The base model's own safety checker: which pictures are not to be shown.

Stable Diffusion folders carry it as `safety_checker/`, with `feature_extractor/` for its input. CLIP's embedding of a
picture is compared with those of 17 concepts, each with a threshold of its own for the cosine; one of three more
concepts lowers them all by 0.01 (read out and examined by Rando et al., arXiv 2210.04610). The judging is diffusers'
`StableDiffusionSafetyChecker`, unchanged.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion import safety_checker
from PIL import Image
from transformers import CLIPImageProcessor

FOLDER, INPUT_FOLDER = "safety_checker", "feature_extractor"


@dataclass(frozen=True, eq=False)
class SafetyChecker:
    """The network and what prepares pictures for it."""

    network: Any
    processor: Any

    def __call__(self, images: Sequence[Image.Image]) -> list[bool]:
        """For each picture: is it blocked?"""
        if not images:
            return []
        pixels = self.processor(images=list(images), return_tensors="pt").pixel_values  # [B, 3, 224, 224]
        # diffusers blackens what it blocks in a second list of pictures; ours are not shown at all.
        unused = [np.zeros(1) for _ in images]
        _, blocked = self.network(clip_input=pixels.to(self.network.device), images=unused)
        return [bool(each) for each in blocked]


def load_safety_checker(folder: Path, *, device: torch.device) -> SafetyChecker | None:
    """The folder's checker, or None if it has none. Half a checker is an error, never a silent None.

    In float32 always: scores are judged at their third decimal, which bfloat16 doesn't have.
    """
    if not (folder / FOLDER).is_dir():
        return None
    # It would announce black pictures, which nobody gets.
    logging.getLogger(safety_checker.__name__).setLevel(logging.ERROR)
    checker_class: Any = safety_checker.StableDiffusionSafetyChecker
    network, found = checker_class.from_pretrained(folder / FOLDER, torch_dtype=torch.float32, output_loading_info=True)
    if found["missing_keys"]:  # diffusers would fill them with random numbers and judge by those
        raise ValueError(f"{folder / FOLDER} lacks {sorted(found['missing_keys'])[:3]}")
    processor = CLIPImageProcessor.from_pretrained(folder / INPUT_FOLDER)
    return SafetyChecker(network.to(device).eval().requires_grad_(False), processor)
