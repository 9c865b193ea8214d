from pathlib import Path

import pytest
import torch
from huggingface_hub.utils._paths import filter_repo_objects
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import cosine_similarity

from hyperdreambooth import diffusion
from hyperdreambooth.safety import SafetyChecker, load_safety_checker
from tests.hyperdreambooth.safety_folder import BLOCKS_ALL, BLOCKS_NONE, write_safety_checker

CPU = torch.device("cpu")


def picture(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (64, 48), colour)


RED, BLUE = picture((250, 10, 10)), picture((10, 10, 250))


def load(folder: Path) -> SafetyChecker:
    checker = load_safety_checker(folder, device=CPU)
    assert checker is not None
    return checker


def test_a_folder_without_a_checker_has_none(tmp_path: Path) -> None:
    assert load_safety_checker(tmp_path, device=CPU) is None


@pytest.mark.parametrize(("threshold", "verdict"), [(BLOCKS_ALL, True), (BLOCKS_NONE, False)])
def test_the_thresholds_of_the_folder_decide(tmp_path: Path, threshold: float, verdict: bool) -> None:
    write_safety_checker(tmp_path, threshold=threshold)
    checker = load(tmp_path)
    assert checker([RED, BLUE]) == [verdict, verdict]
    assert checker([]) == []


def test_each_picture_of_a_batch_has_its_own_verdict(tmp_path: Path) -> None:
    write_safety_checker(tmp_path, threshold=BLOCKS_NONE)
    checker = load(tmp_path)
    pixels = checker.processor(images=[RED, BLUE], return_tensors="pt").pixel_values
    red, blue = checker.network.visual_projection(checker.network.vision_model(pixels)[1])
    checker.network.concept_embeds.data[3] = red
    # Halfway between the red picture, which is the concept, and the blue one.
    checker.network.concept_embeds_weights.data[3] = (1 + cosine_similarity(red, blue, dim=0)) / 2
    assert checker([BLUE, RED, BLUE]) == [False, True, False]


def test_pictures_stay_as_they_are(tmp_path: Path) -> None:
    write_safety_checker(tmp_path, threshold=BLOCKS_ALL)
    shown = RED.copy()
    load(tmp_path)([shown])
    assert shown.tobytes() == RED.tobytes()


def test_a_checker_that_lacks_weights_judges_nothing(tmp_path: Path) -> None:
    write_safety_checker(tmp_path, threshold=BLOCKS_NONE)
    path = tmp_path / "safety_checker" / "model.safetensors"
    weights = load_file(path)
    del weights["concept_embeds_weights"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks.*concept_embeds_weights"):
        load_safety_checker(tmp_path, device=CPU)


def test_a_checker_without_what_prepares_its_pictures_is_an_error(tmp_path: Path) -> None:
    write_safety_checker(tmp_path, threshold=BLOCKS_NONE)
    (tmp_path / "feature_extractor" / "preprocessor_config.json").unlink()
    with pytest.raises(OSError, match="preprocessor_config"):
        load_safety_checker(tmp_path, device=CPU)


def test_the_checker_is_fetched_from_the_hub_with_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patterns: list[str] = []

    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        patterns.extend(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(diffusion, "snapshot_download", fetch)
    assert diffusion.base_model_folder("somebody/stable-diffusion") == tmp_path
    wanted = [
        "feature_extractor/preprocessor_config.json",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    files = [*wanted, "safety_checker/pytorch_model.bin", "v1-5-pruned.safetensors"]
    assert list(filter_repo_objects(files, allow_patterns=patterns)) == wanted
