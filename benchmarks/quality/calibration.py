"""The judges, made ready on rendered people that appear nowhere else: what a cosine means, how a style looks."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import benchmarks.quality.people
import hyperdreambooth.portraits
import hyperdreambooth.recipes.pictures
import hyperdreambooth.recipes.style_probe
from benchmarks.quality.people import CALIBRATION, caption, draw_people, true_styles
from benchmarks.quality.settings import Settings
from hyperdreambooth.faces import FaceDetector
from hyperdreambooth.metrics.anchors import Anchors, measure_anchors
from hyperdreambooth.metrics.face_judges import DlibJudge, Embedding, FaceJudge, FacePanel, SFaceJudge
from hyperdreambooth.metrics.image_features import ImageFeatures
from hyperdreambooth.metrics.prompt_fidelity import StyleProbe, TextScore
from hyperdreambooth.metrics.published import Clip, Dino, FaceNet
from hyperdreambooth.metrics.sentences import Sentences
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.styles import Style
from hyperdreambooth.recipes.style_probe import softened

STYLES = tuple(Style)


@dataclass(frozen=True, eq=False)
class Judges:
    """Everything that looks at a picture."""

    panel: FacePanel
    features: ImageFeatures
    sentences: Sentences
    anchors: dict[tuple[str, Style], Anchors]  # by face judge and style
    style_probe: StyleProbe
    text_score: TextScore
    clip: Clip | None
    dino: Dino | None
    calibration: str  # who they are, and what they were made ready on


def calibrated_judges(head: Head, settings: Settings, *, size: int) -> Judges:
    """Anchors and linear readings from rendered people; what was measured is kept."""
    people, facenet = settings.calibration_people, settings.facenet
    face_judges: tuple[FaceJudge, ...] = (SFaceJudge(), DlibJudge())
    panel = FacePanel(face_judges if facenet is None else (*face_judges, FaceNet(facenet)))
    features, sentences = ImageFeatures(), Sentences()
    names = "-".join((*panel.names, _file_hash([facenet] if facenet else [])))
    path = settings.work / f"calibration-{people}-{size}-{names}-{sources_hash()}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        measured = _measure(head, panel, features, count=people, size=size)
        aside = path.with_suffix(".part.npz")
        np.savez(aside, **measured)  # type: ignore[arg-type]  # numpy's stub takes the arrays for a flag
        aside.replace(path)
    measured = dict(np.load(path))
    anchors = {
        (judge, style): measure_anchors(_found(measured[f"{judge}_photos"]), _found(measured[f"{judge}_{style}"]))
        for judge in panel.names
        for style in STYLES
    }
    captions = [caption(head, int(who), style) for who in measured["people"] for style in STYLES]
    return Judges(
        panel,
        features,
        sentences,
        anchors,
        # Each render was seen twice, as it is and softened: what is asked is the style, not the sharpness.
        StyleProbe.fit(measured["features"], list(STYLES) * people * 2),
        TextScore.fit(measured["features"], np.tile(sentences(captions), (2, 1))),
        Clip(settings.clip) if settings.clip else None,
        Dino(settings.dino) if settings.dino else None,
        f"{path.stem} {settings.clip} {settings.dino}",
    )


def _measure(
    head: Head, panel: FacePanel, features: ImageFeatures, *, count: int, size: int
) -> dict[str, NDArray[Any]]:
    """Portraits as every method gets them, and view 1 in all styles, as the judges see them."""
    people = draw_people(head, FaceDetector(), count=count, first=CALIBRATION, seed=0, size=size)
    styled = [[picture for _, picture in true_styles(head, one.seed, view=1, size=size)] for one in people]
    renders = [picture for pictures in styled for picture in pictures]
    measured: dict[str, NDArray[Any]] = {
        "people": np.array([one.seed for one in people]),
        "features": features([*renders, *map(softened, renders)]),
    }
    columns = {"photos": [one.portrait for one in people]}
    columns |= {str(style): [pictures[place] for pictures in styled] for place, style in enumerate(STYLES)}
    for column, pictures in columns.items():
        looks = [panel(picture) for picture in pictures]
        for judge in panel.names:
            embeddings = [None if look is None else look[judge] for look in looks]
            measured[f"{judge}_{column}"] = _kept(embeddings)
    return measured


def _kept(embeddings: Sequence[Embedding | None]) -> NDArray[np.float32]:
    """NaN where no face was found."""
    width = max(len(one) for one in embeddings if one is not None)
    return np.stack([np.full(width, np.nan, np.float32) if one is None else one for one in embeddings])


def _found(rows: NDArray[Any]) -> list[Embedding | None]:
    return [None if np.isnan(row).any() else row for row in rows]


def sources_hash() -> str:
    """Other pictures, other anchors: what was kept is for this renderer, and this way of measuring, alone."""
    modules = (benchmarks.quality.people, hyperdreambooth.recipes.pictures, hyperdreambooth.recipes.style_probe)
    ours = [Path(str(module.__file__)) for module in modules]
    return _file_hash([*sorted(Path(hyperdreambooth.portraits.__path__[0]).glob("*.py")), *ours, Path(__file__)])


def _file_hash(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
