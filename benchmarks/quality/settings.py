"""What a run of the table needs to know."""

import math
from dataclasses import dataclass
from pathlib import Path

from hyperdreambooth.shipped import MINI


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`identities` and `seed` choose the people; the rest is how they are drawn and judged."""

    identities: int
    seed: int
    base_model: str = str(MINI)
    hypernetworks: tuple[tuple[str, Path], ...] = ()  # name and model folder: each is two rows more
    device: str = "cpu"  # of the base model; the judges stay on the CPU
    work: Path = Path("runs/quality")  # caches: pictures drawn, pictures judged, the judges' calibration
    slow_identities: int = 16  # slow methods and variants of ours are measured on the first of them
    row_minutes: float = math.inf  # a slow row that has trained for so long gets no more people, from the second on
    calibration_people: int = 48
    photos: int = 4  # photo-style pictures of each person, one for each seed
    clip: str | None = (
        None  # the paper's own judges, where somebody has them: folders or hub ids in transformers' format
    )
    dino: str | None = None
    facenet: Path | None = None  # an ONNX file
    carry: Path | None = None  # an earlier FILE, whose rows are taken over where they still hold
    finetune_steps: int | None = None  # fewer iterations for every row: a check that all runs, not a measurement
