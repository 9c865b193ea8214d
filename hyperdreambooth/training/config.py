"""What a training run is told. A run keeps its config in its folder and in every checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hyperdreambooth.config import FinetuneConfig, HypernetworkConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every kind of training has in common."""

    base_model: str = ""  # a diffusers folder or a hub id
    pictures: str = ""  # a folder, or the shards of a WebDataset: faces-{000..015}.tar
    output: str = "runs/training"  # the run's folder
    batch: int = 16  # on each process: pictures of `base`, subjects of the others
    mixed_precision: str = "no"  # or bf16, or fp16
    show_every: int = 500  # steps between sample sheets and validations; of `fit`: batches
    seed: int = 0

    @property
    def folder(self) -> Path:
        return Path(self.output)


@dataclass(frozen=True, kw_only=True)
class StepsRunConfig(RunConfig):
    """Where one network is trained, step by step."""

    steps: int = 10_000
    learning_rate: float = 1e-4
    final_learning_rate: float = 0.05  # the end of the cosine, as a share of learning_rate
    warmup_steps: int = 200
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    save_every: int = 500  # steps between checkpoints
    checkpoints: int = 2  # the newest ones are kept


@dataclass(frozen=True, kw_only=True)
class BaseRunConfig(StepsRunConfig):
    """`hdb train base`: all weights of the UNet, and of the text encoder if asked."""

    output: str = "runs/base"
    train_text_encoder: bool = True
    drop_caption: float = 0.1  # for classifier-free guidance (Ho and Salimans 2022)
    average_decay: float = 0.999  # of the moving average of the weights, which is what is exported
    sheet_prompts: tuple[str, ...] = ("a photo of a woman", "a photo of a man", "a pencil sketch of a face", "a face")


@dataclass(frozen=True, kw_only=True)
class FitRunConfig(RunConfig):
    """`hdb train fit`: a LiDB for each person, many at once, all from the shared start (a target for beta > 0)."""

    output: str = "runs/fit"
    show_every: int = 20
    finetune: FinetuneConfig = field(default_factory=lambda: FinetuneConfig(steps=400, rank=1, learning_rate=5e-3))


@dataclass(frozen=True, kw_only=True)
class HypernetworkRunConfig(StepsRunConfig):
    """`hdb train hypernetwork`: alpha * denoising loss + beta * weight-space loss (paper, section 4.2)."""

    output: str = "runs/hypernetwork"
    hypernetwork: HypernetworkConfig = field(default_factory=HypernetworkConfig)
    targets: int = 3  # pictures of each subject to be denoised; other ones than the reference where there are any
    alpha: float = 1.0
    beta: float = 0.0  # the paper gives no number; 0 trains end to end
    fitted: str = ""  # the output of `hdb train fit`; needed where beta > 0
    held_out: int = 8  # people who are validated on and never trained on: the first ones
    average_decay: float = 0.999


CONFIGS: Mapping[str, type[RunConfig]] = {
    "base": BaseRunConfig,
    "fit": FitRunConfig,
    "hypernetwork": HypernetworkRunConfig,
}
