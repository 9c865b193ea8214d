"""What may differ between two pictures of one person: pose, light, expression, clothes, background, what is worn."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

Colour = tuple[float, float, float]

COLOURS: Final[dict[str, Colour]] = {
    "white": (226, 226, 222),
    "grey": (132, 134, 138),
    "black": (38, 38, 42),
    "red": (176, 52, 46),
    "orange": (214, 128, 56),
    "yellow": (222, 196, 84),
    "green": (76, 136, 78),
    "blue": (62, 96, 172),
    "purple": (120, 74, 148),
    "pink": (222, 146, 164),
}
COLOUR_JITTER = 10.0  # standard deviation, 0..255
FRAMES: Final[tuple[Colour, ...]] = ((30, 28, 30), (74, 46, 30), (120, 36, 40), (168, 150, 96), (150, 152, 158))
GLASSES_SHARE, HAT_SHARE = 0.15, 0.12


class HatKind(StrEnum):
    """The words by which captions call them."""

    CAP = "cap"
    BEANIE = "beanie"
    SUN_HAT = "sun hat"


@dataclass(frozen=True, kw_only=True)
class Glasses:
    """Lengths in distances of the eyes; width and height are from a lens's middle to its rim."""

    frame: Colour
    width: float
    height: float
    squareness: float  # exponent of a superellipse: 2 is round
    thickness: float


@dataclass(frozen=True, kw_only=True)
class Hat:
    """It hides the hair under it, a fringe, and buns on top of the head."""

    kind: HatKind
    colour_name: str
    colour: Colour


@dataclass(frozen=True, kw_only=True)
class Context:
    """Angles in degrees, shifts in widths of the picture, expressions 0..1. The default is a passport photo."""

    yaw: float = 0
    pitch: float = 0
    roll: float = 0
    light: tuple[float, float, float] = (-0.4, 0.5, 1)
    ambient: float = 0.45
    warmth: float = 0
    smile: float = 0
    mouth_open: float = 0
    brows_up: float = 0
    gaze: tuple[float, float] = (0, 0)
    background_name: str = "grey"
    background: Colour = COLOURS["grey"]
    clothes_name: str = "blue"
    clothes: Colour = COLOURS["blue"]
    zoom: float = 1.4
    shift: tuple[float, float] = (0, 0)
    glasses: Glasses | None = None
    hat: Hat | None = None


def random_context(rng: np.random.Generator, *, pose_degrees: float = 9.0) -> Context:
    """A picture as someone might take it; `pose_degrees` is the standard deviation of the yaw."""
    azimuth = rng.uniform(-1.1, 1.1)
    background_name, background = _colour(rng)
    clothes_name, clothes = _colour(rng)
    return Context(
        yaw=float(rng.normal(0, pose_degrees)),
        pitch=float(rng.normal(0, pose_degrees * 0.4)),
        roll=float(rng.normal(0, pose_degrees * 0.25)),
        light=(float(np.sin(azimuth)), float(rng.uniform(0.1, 0.8)), float(np.cos(azimuth)) + 0.2),
        ambient=float(rng.uniform(0.35, 0.6)),
        warmth=float(rng.normal(0, 0.04)),
        smile=float(np.clip(rng.normal(0.25, 0.35), 0, 1)),
        mouth_open=float(np.clip(rng.normal(-0.15, 0.25), 0, 0.5)),
        brows_up=float(np.clip(rng.normal(0, 0.25), -0.4, 0.8)),
        gaze=(float(rng.normal(0, 0.1)), float(rng.normal(0, 0.05))),
        background_name=background_name,
        background=background,
        clothes_name=clothes_name,
        clothes=clothes,
        zoom=float(rng.normal(1.4, 0.035)),
        shift=(float(rng.normal(0, 0.012)), float(rng.normal(0, 0.01))),
    )


def with_accessories(context: Context, rng: np.random.Generator) -> Context:
    """The same picture, sometimes with glasses or a hat."""
    glasses = _glasses(rng) if rng.random() < GLASSES_SHARE else None
    hat = _hat(rng) if rng.random() < HAT_SHARE else None
    return replace(context, glasses=glasses, hat=hat)


def _glasses(rng: np.random.Generator) -> Glasses:
    return Glasses(
        frame=FRAMES[rng.integers(len(FRAMES))],
        width=float(rng.uniform(0.33, 0.42)),
        height=float(rng.uniform(0.24, 0.36)),
        squareness=float(rng.choice([2, 3, 5])),
        thickness=float(rng.uniform(0.06, 0.1)),
    )


def _hat(rng: np.random.Generator) -> Hat:
    colour_name, colour = _colour(rng)
    kind = list(HatKind)[rng.integers(len(HatKind))]
    return Hat(kind=kind, colour_name=colour_name, colour=colour)


def _colour(rng: np.random.Generator) -> tuple[str, Colour]:
    name = str(rng.choice(list(COLOURS)))
    red, green, blue = np.clip(np.array(COLOURS[name]) + rng.normal(0, COLOUR_JITTER, 3), 0, 255)
    return name, (float(red), float(green), float(blue))
