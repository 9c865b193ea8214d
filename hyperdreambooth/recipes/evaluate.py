"""What `mini` can do, in numbers: `python -m hyperdreambooth.recipes.evaluate [folder] [--dtype bfloat16]`.

People are rendered with seeds that training never saw. The judges, YuNet and SFace, took no part in training either.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hyperdreambooth.adapter import Adapter
from hyperdreambooth.config import PersonalizeConfig
from hyperdreambooth.diffusion import decode_latents, encode_images, sample
from hyperdreambooth.faces import FaceDetector
from hyperdreambooth.identity import IdentityEmbedder
from hyperdreambooth.personalize import Networks, generate, load_networks, personalize
from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.captions import STYLE_PHRASES
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.identity import FIRST_HELD_OUT_SEED
from hyperdreambooth.portraits.render import render
from hyperdreambooth.portraits.styles import Style, draw
from hyperdreambooth.recipes.pictures import PicturesConfig, person, render_person, view_context
from hyperdreambooth.recipes.progress import say
from hyperdreambooth.recipes.sheets import save_sheet
from hyperdreambooth.recipes.stage import CPU
from hyperdreambooth.recipes.style_probe import StyleProbe

PHOTO_SUBJECTS = ("a woman", "a man", "a young woman", "an old man", "a face", "a person")
SHEET_STYLES = (Style.PENCIL_SKETCH, Style.CARTOON, Style.OIL_PAINTING, Style.POP_ART)
GROUP = 8  # the right photo has to be found among so many


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How much is measured."""

    folder: Path = Path("hyperdreambooth/mini")
    work: Path = Path("runs/mini")
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    people: int = 16  # a multiple of GROUP
    photos: int = 48
    styled: int = 6  # pictures of each style
    pictures_each: int = 2  # of each personalised person, with different seeds
    probe_people: int = 400  # whose renders the style probe is fitted on


@dataclass(frozen=True)
class Judges:
    """Who finds a face, and who says whose it is."""

    detector: FaceDetector
    embedder: IdentityEmbedder

    def embed(self, pictures: Sequence[Image.Image]) -> list[Array | None]:
        return [self.embedder(picture, self.detector) for picture in pictures]


def main(config: EvaluateConfig) -> dict[str, float]:
    """Print every figure, and write the pictures behind them to the work folder."""
    networks = load_networks(str(config.folder), device=config.device, dtype=config.dtype)
    judges = Judges(FaceDetector(threads=1), IdentityEmbedder(threads=1))
    head = Head.load(cache=config.work / "cache")
    seeds = range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + config.people)
    selfies, others = ([photo_of(head, seed, view) for seed in seeds] for view in (0, 1))
    figures = {
        "face found in photos, share": photo_hits(networks, judges, config),
        "style recognised, share": style_accuracy(networks, head, config),
        **round_trip(networks, judges, selfies, others),
        **identity_figures(networks, judges, selfies, others, config),
    }
    for name, figure in figures.items():
        say(f"{name:50s} {figure:.3f}")
    (config.work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def photo_of(head: Head, seed: int, view: int) -> Image.Image:
    """A held-out person: view 0 is the selfie, view 1 another pose, light and background."""
    size = PicturesConfig().size
    return draw(render(head, person(head, seed), view_context(seed, view), size=size), Style.PHOTO, size=size, seed=0)


def photo_hits(networks: Networks, judges: Judges, config: EvaluateConfig) -> float:
    """In which share of photos of nobody in particular the detector finds a face."""
    prompts = [f"a photo of {PHOTO_SUBJECTS[n % len(PHOTO_SUBJECTS)]}" for n in range(config.photos)]
    photos = sample(networks.base_model, prompts, seeds=range(config.photos), config=networks.config.sample)
    save_sheet(photos[:48], config.work / "evaluate-photos.png", columns=12)
    return float(np.mean([bool(judges.detector(photo)) for photo in photos]))


def style_accuracy(networks: Networks, head: Head, config: EvaluateConfig) -> float:
    """A probe fitted on renders names the style of generated pictures."""
    probe = fitted_probe(head, people=config.probe_people)
    prompts = [STYLE_PHRASES[style][0].format("a person") for style in Style for _ in range(config.styled)]
    drawn = sample(networks.base_model, prompts, seeds=range(len(prompts)), config=networks.config.sample)
    save_sheet(drawn, config.work / "evaluate-styles.png", columns=config.styled)
    right = np.repeat(np.arange(len(Style)), config.styled)
    return float((probe(np.stack([np.asarray(picture) for picture in drawn])) == right).mean())


def fitted_probe(head: Head, *, people: int) -> StyleProbe:
    """Fitted on plain people, one picture in every style: whom it judges wears no hat either."""
    pictures = PicturesConfig(other_styles=len(Style) - 1, views=1)
    rendered = [row for seed in range(people) for row in render_person(head, seed, pictures, plain=True)]
    return StyleProbe.fit(np.stack([picture for picture, _ in rendered]), np.array([r[2] for _, r in rendered]))


def round_trip(
    networks: Networks, judges: Judges, selfies: list[Image.Image], others: list[Image.Image]
) -> dict[str, float]:
    """What the autoencoder alone loses of a person: a ceiling for everything below."""
    decoded = decode_latents(networks.base_model, encode_images(networks.base_model, others))
    error = np.mean(
        (np.stack([np.asarray(d) for d in decoded]) - np.stack([np.asarray(o, float) for o in others])) ** 2
    )
    top, cosine = match(judges.embed(decoded), judges.embed(selfies))
    return {
        "autoencoder, dB": float(10 * np.log10(255**2 / error)),
        f"autoencoder, another view, right photo of {GROUP}": top,
        "autoencoder, another view, cosine": cosine,
    }


def identity_figures(
    networks: Networks, judges: Judges, selfies: list[Image.Image], others: list[Image.Image], config: EvaluateConfig
) -> dict[str, float]:
    """Personalised from the selfie, drawn anew, compared with the other photo, which no stage has seen."""
    targets = judges.embed(others)
    figures: dict[str, float] = {}
    renders_top, renders_cosine = match(judges.embed(selfies), targets)
    figures[f"renders, right photo of {GROUP}"], figures["renders, cosine"] = renders_top, renders_cosine
    figures["renders of strangers, cosine"] = float(np.mean(strangers(targets)))
    sheet = [*selfies, *others]
    for name, wishes in rows(networks).items():
        adapters = personalised(networks, selfies, wishes)
        drawn = [draw_in(Style.PHOTO, networks, adapters, first_seed=1000 * n) for n in range(config.pictures_each)]
        matches = [match(judges.embed(pictures), targets) for pictures in drawn]
        figures[f"{name}, right photo of {GROUP}"] = float(np.mean([top for top, _ in matches]))
        figures[f"{name}, cosine"] = float(np.mean([cosine for _, cosine in matches]))
        found = [bool(judges.detector(picture)) for pictures in drawn for picture in pictures]
        figures[f"{name}, face found"] = float(np.mean(found))
        sheet += drawn[0]
        if name == "personalised":
            sheet += [picture for style in SHEET_STYLES for picture in draw_in(style, networks, adapters)]
    save_sheet(sheet, config.work / "evaluate-people.png", columns=len(selfies))
    return figures


def rows(networks: Networks) -> dict[str, PersonalizeConfig]:
    """The whole method, and its prediction alone."""
    config = networks.config
    no_steps = replace(config.finetune, steps=0, rank=networks.prediction_rank)
    return {"prediction alone": replace(config, finetune=no_steps), "personalised": config}


def personalised(networks: Networks, selfies: list[Image.Image], wishes: PersonalizeConfig) -> list[Adapter]:
    """One adapter for each rendered person."""
    outcomes = personalize([[selfie] for selfie in selfies], networks, wishes, seeds=range(len(selfies)))
    adapters = [outcome for outcome in outcomes if isinstance(outcome, Adapter)]
    assert len(adapters) == len(selfies), "a rendered selfie was refused"
    return adapters


def draw_in(style: Style, networks: Networks, adapters: list[Adapter], *, first_seed: int = 0) -> list[Image.Image]:
    """A picture of each person in one style. The seed decides on the pose."""
    prompts = [STYLE_PHRASES[style][0].format("a {subject}")] * len(adapters)
    seeds = range(first_seed, first_seed + len(adapters))
    return generate(networks, adapters, prompts, seeds=seeds, config=networks.config.sample)


def match(pictures: list[Array | None], photos: list[Array | None]) -> tuple[float, float]:
    """Share of pictures whose own photo is the nearest of its GROUP, and the mean cosine to it. No face: no match."""
    right, cosines = [], []
    for place, picture in enumerate(pictures):
        if picture is None:
            right.append(False)
            continue
        first = place // GROUP * GROUP
        likeness = [-1.0 if photo is None else float(picture @ photo) for photo in photos[first : first + GROUP]]
        right.append(int(np.argmax(likeness)) == place - first)
        cosines.append(likeness[place - first])
    return float(np.mean(right)), float(np.mean(cosines)) if cosines else float("nan")


def strangers(photos: list[Array | None]) -> list[float]:
    """Cosines between different people."""
    present = np.stack([photo for photo in photos if photo is not None])
    return [float(c) for c in (present @ present.T)[np.triu_indices(len(present), 1)]]


def asked(arguments: Sequence[str]) -> EvaluateConfig:
    """The config as it is asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=EvaluateConfig.folder)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    given = parser.parse_args(arguments)
    return EvaluateConfig(folder=given.folder, dtype=getattr(torch, given.dtype))


if __name__ == "__main__":
    main(asked(sys.argv[1:]))
