"""A safety checker of a few thousand random weights, as Stable Diffusion folders carry it."""

import json
from pathlib import Path

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig

SIDE = 32
LAYERS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
# Cosines end at one: everything is above the first threshold, nothing above the second.
BLOCKS_ALL, BLOCKS_NONE = -1.1, 1.1
# As the oldest folders write it.
PREPARATION = {
    "crop_size": SIDE,
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": SIDE,
}


def write_safety_checker(folder: Path, *, threshold: float) -> None:
    """Both subfolders; the weights are those of this seed."""
    text = LAYERS | {"vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        vision_config=LAYERS | {"image_size": SIDE, "patch_size": 16}, text_config=text, projection_dim=8
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = StableDiffusionSafetyChecker(config)
    network.concept_embeds_weights.data.fill_(threshold)
    network.special_care_embeds_weights.data.fill_(BLOCKS_NONE)
    network.save_pretrained(folder / "safety_checker")
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(PREPARATION))
