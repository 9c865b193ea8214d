"""Make the shipped small model from nothing: `python -m hyperdreambooth.recipes.mini` (or `make mini`).

Pictures, autoencoder, base model, hypernetwork, a sharper decoder, figures, model card: four hours on two CPU cores.
Stopped at any point, it goes on from there. START HERE for how `mini` was made; each stage is a file of its own.
"""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from hyperdreambooth.recipes import (
    evaluate,
    pictures,
    train_base,
    train_decoder,
    train_face_encoder,
    train_hypernetwork,
    train_vae,
)
from hyperdreambooth.recipes.model_card import write_model_card
from hyperdreambooth.recipes.progress import say


@dataclass(frozen=True, kw_only=True)
class MiniConfig:
    """Minutes of two CPU cores for each stage; the pictures take as long as they take (about seven)."""

    work: Path = Path("runs/mini")
    target: Path = Path("hyperdreambooth/mini")
    identities: int = 6000
    vae_minutes: float = 24
    base_minutes: float = 94
    face_encoder_minutes: float = 8
    hypernetwork_minutes: float = 72
    decoder_minutes: float = 6
    evaluation: evaluate.EvaluateConfig = field(default_factory=evaluate.EvaluateConfig)


def main(config: MiniConfig) -> None:
    """All stages in order. What is finished is not done again."""
    people = pictures.PicturesConfig(folder=config.work, identities=config.identities)
    pictures.main(people)
    train_vae.main(train_vae.VaeConfig(pictures=people, minutes=config.vae_minutes))
    train_base.main(train_base.BaseConfig(pictures=people, minutes=config.base_minutes))
    train_face_encoder.main(train_face_encoder.FaceEncoderConfig(pictures=people, minutes=config.face_encoder_minutes))
    train_hypernetwork.main(
        train_hypernetwork.TrainHypernetworkConfig(pictures=people, minutes=config.hypernetwork_minutes)
    )
    train_decoder.main(train_decoder.DecoderConfig(pictures=people, minutes=config.decoder_minutes))
    publish(config.work / "base", config.target)
    figures = evaluate.main(replace(config.evaluation, folder=config.target, work=config.work))
    write_model_card(config.target, figures)
    say(f"mini  done: {config.target}")


def publish(made: Path, target: Path) -> None:
    """Replace the shipped folder by the one just made."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(made, target)
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes files that only their owner may read


if __name__ == "__main__":
    main(MiniConfig())
