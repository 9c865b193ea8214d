"""Pictures of one person to numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from benchmarks.quality.calibration import Judges
from benchmarks.quality.people import Person
from benchmarks.quality.questions import Question, photo_places
from hyperdreambooth.metrics.face_judges import DlibJudge, Embedding, SFaceJudge
from hyperdreambooth.metrics.scores import change, cosine, identity, is_first, pixel_likeness, spread
from hyperdreambooth.portraits.styles import Style

TELLING = 0.2  # a style is shown by itself where strangers stand at least so far off, as a share of photos' distance
Look = dict[str, Embedding] | None  # each face judge's embedding; None: no face
METRICS = (
    "identity_sface",
    "identity_dlib",
    "top1_sface",
    "top1_dlib",
    "image",
    "prompt",
    "diversity",
    "harm",
    "copy",
)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Everybody's portraits as the face judges see them, and the base model's pictures of other people."""

    people: Sequence[Person]
    looks: Sequence[dict[str, Embedding]]
    other_portraits: Sequence[dict[str, Embedding]]
    other_looks: Sequence[Look]
    calibration: str  # of the judges


def make_gallery(judges: Judges, people: Sequence[Person], others: Sequence[Image.Image]) -> Gallery:
    looks = [_seen(judges, person.portrait) for person in people]
    other_portraits = [_seen(judges, person.other_portrait) for person in people]
    other_looks = [judges.panel(picture) for picture in others]
    return Gallery(people, looks, other_portraits, other_looks, judges.calibration)


def _seen(judges: Judges, portrait: Image.Image) -> dict[str, Embedding]:
    look = judges.panel(portrait)
    assert look is not None, "the portrait was aligned by a face"
    return look


def judge(
    judges: Judges,
    gallery: Gallery,
    own: int,
    asked: Sequence[Question],
    pictures: Sequence[Image.Image],
    others: Sequence[Image.Image],
) -> dict[str, float]:
    """All metrics of one person under one method; `identity_sface/<style>` and the like beside the means."""
    photo, looks = gallery.people[own].portrait, [judges.panel(picture) for picture in pictures]
    photos = photo_places(asked)
    scores: dict[str, float] = {"faces": float(np.mean([look is not None for look in looks]))}
    for name in judges.panel.names:
        scores |= _identity_scores(judges, gallery, own, asked, looks, name)
    features = judges.features([photo, *pictures])
    of_photo, of_pictures = features[0], features[1:]
    scores["image"] = float(np.mean([cosine(one, of_photo) for one in of_pictures]))
    named = judges.style_probe(of_pictures)
    scores["prompt"] = float(np.mean([style == question.style for style, question in zip(named, asked, strict=True)]))
    prompts = judges.sentences([question.prompt.replace("{subject}", "person") for question in asked])
    scores["text"] = float(judges.text_score(of_pictures, prompts).mean())
    scores |= _published_scores(judges, photo, asked, pictures)
    scores["diversity"] = spread([of_pictures[place] for place in photos])
    scores["harm"] = _harm(judges, gallery.other_looks, [judges.panel(picture) for picture in others])
    scores["copy"] = float(np.mean([pixel_likeness(pictures[place], photo) for place in photos]))
    return scores


def _identity_scores(
    judges: Judges, gallery: Gallery, own: int, asked: Sequence[Question], looks: Sequence[Look], name: str
) -> dict[str, float]:
    """One face judge's view: normalised identity, and whether the right person comes first.

    `other_portrait_*` is identity once more, to a portrait that no method has seen: what is alike in pose and light
    with the photo alone counts there for nothing.
    """
    portraits = [look[name] for look in gallery.looks]
    embeddings = [None if look is None else look[name] for look in looks]
    anchors = [judges.anchors[name, question.style] for question in asked]
    first = [is_first(embedding, portraits, own) for embedding in embeddings]
    by_style = {}
    for style in dict.fromkeys(question.style for question in asked):
        places = [place for place, question in enumerate(asked) if question.style is style]
        if judges.anchors[name, style].distance > TELLING * judges.anchors[name, Style.PHOTO].distance:
            of_style = [embeddings[place] for place in places], portraits[own], [anchors[place] for place in places]
            by_style[f"identity_{name}/{style}"] = identity(*of_style)
    return {
        f"identity_{name}": identity(embeddings, portraits[own], anchors),
        f"other_portrait_{name}": identity(embeddings, gallery.other_portraits[own][name], anchors),
        f"top1_{name}": float(np.mean(first)),
        f"top1_{name}_photo": float(np.mean([first[place] for place in photo_places(asked)])),
        **by_style,
    }


def _published_scores(
    judges: Judges, photo: Image.Image, asked: Sequence[Question], pictures: Sequence[Image.Image]
) -> dict[str, float]:
    """The paper's DINO, CLIP-I and CLIP-T, where their weights were given."""
    scores = {}
    if judges.dino is not None:
        of_photo, *of_pictures = judges.dino.images([photo, *pictures])
        scores["dino"] = float(np.mean([one @ of_photo for one in of_pictures]))
    if judges.clip is not None:
        of_photo, *of_pictures = judges.clip.images([photo, *pictures])
        of_prompts = judges.clip.prompts([question.prompt.replace("{subject}", "person") for question in asked])
        scores["clip_i"] = float(np.mean([one @ of_photo for one in of_pictures]))
        scores["clip_t"] = float(np.mean([one @ other for one, other in zip(of_pictures, of_prompts, strict=True)]))
    return scores


def _harm(judges: Judges, before: Sequence[Look], after: Sequence[Look]) -> float:
    """How far other people moved, averaged over SFace and dlib. Where the base model drew no face there is nobody."""
    moved = [
        change(one[name], None if other is None else other[name], judges.anchors[name, Style.PHOTO])
        for one, other in zip(before, after, strict=True)
        if one is not None
        for name in (SFaceJudge.name, DlibJudge.name)
    ]
    return float(np.mean(moved)) if moved else 0.0
