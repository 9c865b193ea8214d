"""Who a rendered person is: about 130 numbers drawn from a seed. Everything else about a picture is context."""

from dataclasses import dataclass, replace

import numpy as np

from hyperdreambooth.portraits.arrays import Array

FIRST_HELD_OUT_SEED = 1_000_000  # people from here on are never trained on: they are for judging
SHAPE_SPREAD = 0.33  # standard deviation of a slider
LONG = 0.3  # length from which hair hangs down
HAIRSTYLES = (0, 4)  # of a person's streams of random numbers; [seed, view] are those of contexts

SKIN_TONES = np.array(
    [[255, 224, 200], [241, 194, 156], [222, 171, 127], [198, 134, 90], [150, 98, 62], [104, 66, 42], [70, 44, 30]],
    np.float32,
)
HAIR_COLOURS = np.array(
    [
        [28, 22, 20],  # black
        [50, 34, 24],  # dark brown
        [84, 54, 32],  # brown
        [130, 88, 48],  # light brown
        [196, 150, 84],  # dark blond
        [226, 196, 134],  # blond
        [150, 62, 30],  # red
        [150, 150, 150],  # grey
    ],
    np.float32,
)
HAIR_SHARES = [0.12, 0.2, 0.2, 0.16, 0.12, 0.08, 0.07, 0.05]
GREY = 7
IRIS_COLOURS = np.array(
    [[66, 40, 24], [96, 62, 32], [84, 100, 60], [74, 116, 150], [110, 150, 176], [110, 120, 120]], np.float32
)


@dataclass(frozen=True, kw_only=True)
class Brows:
    """In distances of the eyes, but for density and tilt."""

    height: float
    thickness: float
    tilt: float
    arch: float
    density: float


@dataclass(frozen=True, kw_only=True)
class Hair:
    """Lengths in distances of the eyes."""

    colour: Array
    line: float  # how high it starts above the forehead
    length: float
    volume: float
    curl: float
    bald: bool
    ringlets: bool = False  # curls that show
    fringe: float = 0  # how far it comes down from the hairline; 0: none
    buns: int = 0  # one beside the neck or two on the head: the rest of long hair is tied back

    @property
    def hangs(self) -> bool:
        """Is there hair to hang down, or to be tied?"""
        return self.length > LONG and not self.bald


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One person. Colours are RGB, 0..255; other numbers are 0..1 unless they say otherwise."""

    seed: int
    gender: float  # 0 female, 1 male
    age: float
    ancestry: Array  # [3] weights of three average shapes: variety, never a label
    weight: float
    muscle: float
    sliders: Array  # [sliders] in -1..1
    skin: Array
    lips: Array
    iris: Array
    hair: Hair
    brows: Brows
    beard: float
    moustache: float
    freckles: float
    moles: Array  # [moles, 2] canonical x, y

    @property
    def is_man(self) -> bool:
        return self.gender > 0.5


def make_identity(seed: int, *, slider_count: int) -> Identity:
    """The person with this number; the same at every call."""
    rng = np.random.default_rng(seed)
    gender = float(np.clip(rng.normal(rng.choice([0.08, 0.92]), 0.1), 0, 1))
    is_man = gender > 0.5
    age = float(rng.beta(1.3, 1.6))
    ancestry = rng.dirichlet([0.35, 0.35, 0.35])
    skin = _skin(rng, ancestry)
    dark = bool(rng.random() < ancestry[0] + ancestry[1])
    iris = IRIS_COLOURS[rng.integers(0, 2 if dark else 6)]
    return Identity(
        seed=seed,
        gender=gender,
        age=age,
        ancestry=ancestry,
        weight=_clipped_normal(rng, 0.5, 0.18),
        muscle=_clipped_normal(rng, 0.5, 0.15),
        sliders=np.clip(rng.normal(0, SHAPE_SPREAD, slider_count), -1, 1),
        skin=skin,
        lips=np.clip(skin * [0.86, 0.62, 0.62] + rng.normal(0, 8, 3), 0, 255),
        iris=np.clip(iris + rng.normal(0, 10, 3), 0, 255),
        hair=_hair(rng, is_man=is_man, age=age, dark=dark),
        brows=_brows(rng, is_man=is_man),
        beard=float(is_man and rng.random() < 0.42) * rng.uniform(0.35, 1),
        moustache=float(is_man and rng.random() < 0.3) * rng.uniform(0.5, 1),
        freckles=float(rng.random() < 0.2) * rng.uniform(0.3, 1),
        moles=rng.uniform([-0.75, -1.1], [0.75, 0.5], (int(rng.integers(0, 3)), 2)),
    )


def with_hairstyle(identity: Identity) -> Identity:
    """The same person with hair that is done in some way: ringlets, a fringe, a bun or two. `make_identity` knows none.

    A stream of its own, so that whoever was drawn before stays who they are.
    """
    hair, rng = identity.hair, np.random.default_rng([identity.seed, *HAIRSTYLES])
    ringlets, fringe = rng.random() < 0.8, rng.random() < (0.2 if identity.is_man else 0.4)
    depth, buns = float(rng.uniform(0.3, 0.5)), int(rng.choice([0, 1, 2], p=[0.72, 0.14, 0.14]))
    style = replace(
        hair,
        ringlets=bool(hair.curl == 1 and ringlets and not hair.bald),
        fringe=depth if fringe and not hair.bald else 0,
        buns=buns if hair.hangs else 0,
    )
    return replace(identity, hair=style)


def _clipped_normal(rng: np.random.Generator, mean: float, deviation: float) -> float:
    return float(np.clip(rng.normal(mean, deviation), 0, 1))


def _skin(rng: np.random.Generator, ancestry: Array) -> Array:
    last = len(SKIN_TONES) - 1
    tone = float(np.clip(ancestry @ np.array([5.2, 2.0, 1.0]) + rng.normal(0, 0.7), 0, last))
    lighter, darker = SKIN_TONES[int(tone)], SKIN_TONES[min(int(tone) + 1, last)]
    skin = lighter + (darker - lighter) * (tone - int(tone))
    return np.asarray(np.clip(skin * (1 + rng.normal(0, 0.03, 3)), 0, 255))


def _hair(rng: np.random.Generator, *, is_man: bool, age: float, dark: bool) -> Hair:
    colour = HAIR_COLOURS[rng.integers(0, 2) if dark else rng.choice(len(HAIR_COLOURS), p=HAIR_SHARES)]
    if age > 0.8 and rng.random() < 0.7:
        colour = HAIR_COLOURS[GREY] + rng.normal(0, 15)
    short = is_man and rng.random() < 0.85
    return Hair(
        colour=np.clip(colour + rng.normal(0, 6, 3), 0, 255),
        line=float(rng.normal(0, 0.12)),
        length=float(rng.uniform(0, 0.25) if short else rng.uniform(0.35, 1)),
        volume=float(rng.uniform(0.06, 0.34)),
        curl=float(rng.choice([0, 0, 0.5, 1])),
        bald=bool(is_man and age > 0.45 and rng.random() < 0.3),
    )


def _brows(rng: np.random.Generator, *, is_man: bool) -> Brows:
    return Brows(
        height=float(rng.normal(0, 0.03)),
        thickness=float(rng.uniform(0.045, 0.11) * (1.15 if is_man else 0.8)),
        tilt=float(rng.normal(0, 0.12)),
        arch=float(rng.normal(0.06, 0.03)),
        density=float(rng.uniform(0.5, 0.95)),
    )
