from pathlib import Path

import pytest

from hyperdreambooth.config import (
    FinetuneConfig,
    HypernetworkConfig,
    LiDBConfig,
    PersonalizeConfig,
    from_json,
    load_personalize_config,
    to_json,
)
from hyperdreambooth.layers import LayerKind


@pytest.mark.parametrize(
    "config",
    [
        PersonalizeConfig(identifier="[V]", finetune=FinetuneConfig(steps=7)),
        HypernetworkConfig(patch_size=4),
        LiDBConfig(layers=(LayerKind.CONVOLUTION, LayerKind.TEXT)),
    ],
)
def test_a_config_survives_json(config: PersonalizeConfig | HypernetworkConfig | LiDBConfig) -> None:
    assert from_json(type(config), to_json(config)) == config


def test_a_missing_field_keeps_its_default_and_an_unknown_one_is_an_error() -> None:
    assert from_json(PersonalizeConfig, '{"finetune": {"rank": 3}}').finetune == FinetuneConfig(rank=3)
    with pytest.raises(ValueError, match="FinetuneConfig has no ranks"):
        from_json(PersonalizeConfig, '{"finetune": {"ranks": 3}}')
    with pytest.raises(ValueError, match="'resnets' is not a valid LayerKind"):
        from_json(LiDBConfig, '{"layers": ["resnets"]}')


def test_a_folder_without_wishes_gets_the_defaults(tmp_path: Path) -> None:
    assert load_personalize_config(tmp_path) == PersonalizeConfig()


@pytest.mark.parametrize(
    ("prompt", "filled"),
    [
        ("a pencil sketch of a {subject}", "a pencil sketch of a [V] face"),
        ("on the beach", "[V] face, on the beach"),
        ("", "[V] face"),
        ("{subject} and {subject} {other}", "[V] face and [V] face {other}"),
    ],
)
def test_a_prompt_is_filled_with_the_subject(prompt: str, filled: str) -> None:
    assert PersonalizeConfig(identifier="[V]", class_noun="face").fill_prompt(prompt) == filled
