"""What a run of the service's benchmark needs to know."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The defaults fit two quiet cores and about ten minutes."""

    batch_sizes: tuple[int, ...] = (1, 8)  # HDB_BATCH_SIZE; the first one, batching off, sets the pace of arrivals
    jobs: int = 16  # subjects, and then generations: asked for at once, and again one by one
    pictures: int = 2  # of each generation
    prompt: str = "a photo of a {subject}"
    load: float = 0.7  # arrivals, as a share of what the first batch size gets through
    base_model: str = "mini"
    steps: int | None = None  # of the finetuning; None is the model's own
    sample_steps: int | None = None
    photo: Path | None = None  # None: a rendered person who doesn't exist
    device: str = "auto"
