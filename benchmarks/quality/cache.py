"""Rows take hours: what has been drawn and judged is kept, person by person, under everything it depends on."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.quality.bench import Bench
from benchmarks.quality.calibration import sources_hash
from benchmarks.quality.judging import Gallery
from benchmarks.quality.report import hardware
from benchmarks.quality.row import Outcome, Row
from hyperdreambooth.config import to_json

TRAINING = 1  # raise it when a method trains or draws in another way: outcomes kept so far no longer count
JUDGING = 4  # raise it when a metric is computed in another way: judgements kept so far no longer count


class Cache:
    """Outcomes of one row under one base model. Rows that differ in nothing but their name share them."""

    def __init__(self, bench: Bench, row: Row) -> None:
        asked = [(question.prompt, question.number) for question in bench.asked]
        wishes = [to_json(bench.networks.config), bench.networks.basis.learned_hash]
        computer = hardware(bench.device)  # another one's seconds can't be compared
        key = _hash([TRAINING, sources_hash(), row.settings, *wishes, asked, bench.other_prompts, computer])
        self.folder = bench.folder / f"{row.method}-{key}"

    def outcome(self, who: int) -> Outcome | None:
        path = self.folder / f"{who}.npz"
        if not path.exists():
            return None
        with np.load(path) as kept:
            pictures, others = ([Image.fromarray(picture) for picture in kept[part]] for part in ("pictures", "others"))
            return Outcome(pictures, others, float(kept["seconds"]), int(kept["stored_bytes"]))

    def keep_outcome(self, who: int, outcome: Outcome) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / f"{who}.part.npz"
        np.savez(
            aside,
            pictures=_stacked(outcome.pictures),
            others=_stacked(outcome.others),
            seconds=np.float64(outcome.seconds),
            stored_bytes=np.int64(outcome.stored_bytes),
        )
        aside.replace(self.folder / f"{who}.npz")

    def scores(self, who: int, gallery: Gallery) -> dict[str, float] | None:
        path = self._scores_path(who, gallery)
        return dict(json.loads(path.read_text())) if path.exists() else None

    def keep_scores(self, who: int, gallery: Gallery, scores: dict[str, float]) -> None:
        path = self._scores_path(who, gallery)
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps(scores))
        aside.replace(path)

    def _scores_path(self, who: int, gallery: Gallery) -> Path:
        """Who is first among how many depends on the gallery."""
        return self.folder / f"{who}-{_hash([JUDGING, gallery.calibration, [one.seed for one in gallery.people]])}.json"


def _stacked(pictures: Sequence[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])


def _hash(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
