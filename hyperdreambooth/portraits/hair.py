"""Hair: a shell lifted off the scalp, and for long hair a curtain behind the face, or buns."""

from dataclasses import replace

import numpy as np

from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.head import Head, Part
from hyperdreambooth.portraits.identity import Hair, Identity
from hyperdreambooth.portraits.noise import value_noise
from hyperdreambooth.portraits.surface import Grows, Patch, sheet, shell

CURTAIN_COLUMNS, CURTAIN_ROWS = 48, 40
BUN_RADIUS = 0.46
FRINGE_SEED = 5
ONE_BUN, TWO_BUNS = ((1.25, -0.95, -1.4),), ((-0.98, 1.42, -0.8), (0.98, 1.42, -0.8))


def hairline(hair: Hair, x: Array) -> Array:
    """Canonical height at which hair starts, over the face; a fringe comes down from there in uneven tips."""
    line = 1.02 + hair.line * 0.5 - 0.30 * x**2 + 0.10 * np.cos(3 * x)
    if hair.fringe:
        tips = 0.10 * (value_noise(x, 0 * x, seed=FRINGE_SEED, frequency=9) - 0.5)
        line = line - hair.fringe * np.clip((1.1 - np.abs(x)) / 0.3, 0, 1) + tips
    return np.asarray(line)


def on_scalp(hair: Hair, canonical: Array, ears: Array) -> Array:
    """Does hair grow here? `ears` is the ear mask at the same points."""
    x, y, z = canonical.T
    sideburn = (np.abs(x) > 0.98) & (z < -0.35) & (y > -0.15) & (z > -1.6)
    grows = ((y > hairline(hair, x)) | (_back(canonical) & (y > -0.75)) | sideburn) & (ears < 0.3)
    return np.asarray(grows & (y < 1.0) if hair.bald else grows)


def hair_patches(head: Head, identity: Identity, vertices: Array, normals: Array, *, hat: bool = False) -> list[Patch]:
    """What grows on this person: always a shell, and if it is long a curtain or buns; but for what a hat hides."""
    hair = replace(identity.hair, fringe=0) if hat else identity.hair

    def grows(canonical: Array, ears: Array) -> Array:
        shown = on_scalp(hair, canonical, ears)
        return shown & ~under_hat(canonical) if hat else shown

    patches = [_shell(head, identity, vertices, normals, grows)]
    if hair.hangs and not hair.buns:
        patches.append(_curtain(head, identity, vertices))
    buns = {0: (), 1: ONE_BUN, 2: () if hat else TWO_BUNS}[hair.buns]
    return [*patches, *(_bun(head, vertices, place) for place in buns)]


def under_hat(canonical: Array) -> Array:
    """Is this place covered by whatever hat? A little above its edge, so that no skin shows between hat and hair."""
    return np.asarray(canonical[:, 1] > hat_edge(canonical[:, 2]) + 0.04)


def hat_edge(z: Array) -> Array:
    """Canonical height of a hat's lower edge: higher over the forehead than at the back."""
    return np.asarray(0.72 + 0.12 * z)


def _back(canonical: Array) -> Array:
    return np.asarray(canonical[:, 2] < -0.95)


def _shell(head: Head, identity: Identity, vertices: Array, normals: Array, grows: Grows) -> Patch:
    heights, depths = head.canonical[head.quads][..., 1], head.canonical[head.quads][..., 2]
    chosen = (head.part == Part.BODY) & ((heights.max(1) > 0.5) | (depths.min(1) < -0.3)) & (heights.min(1) > -1.0)
    lifted = vertices + normals * (thickness(identity, head.canonical) * head.eye_distance)[:, None]
    return shell(head, lifted, normals, chosen=chosen, part=Part.HAIR, grows=grows)


def thickness(identity: Identity, canonical: Array) -> Array:
    """In distances of the eyes: thin at the hairline, full on the crown, lumpy where it curls."""
    hair, (x, y, z) = identity.hair, canonical.T
    lumps = 1 + 0.5 * hair.curl * (value_noise(x + z, y, seed=identity.seed, frequency=7) - 0.5)
    thickness = hair.volume * (0.35 + 0.65 * np.clip((y - 0.4) / 1.2, 0, 1)) * lumps + 0.02
    rim = np.clip((y - hairline(hair, x)) / 0.18, 0.15, 1)
    side = (np.abs(x) > 0.98) & (z < -0.35)
    return np.asarray(thickness * np.where(_back(canonical), 1, np.where(side, 0.5, rim)), np.float32)


def _curtain(head: Head, identity: Identity, vertices: Array) -> Patch:
    """A bent sheet round the back and the sides, its lower edge as deep as the hair is long."""
    hair = identity.hair
    angle, fall = np.meshgrid(np.linspace(-2.05, 2.05, CURTAIN_COLUMNS), np.linspace(0, 1, CURTAIN_ROWS))
    lumps = 0.10 * hair.curl * (value_noise(angle * 3, fall * 6, seed=identity.seed, frequency=2) - 0.5)
    wave = 1 + 0.05 * np.sin(angle * 9 + identity.seed) * fall + lumps
    x = np.sin(angle) * (1.16 + hair.volume * 0.7) * (1 - 0.12 * (fall - 0.35) ** 2) * wave
    y = 0.75 - (0.9 + 2.6 * hair.length) * fall + 0.05 * np.sin(angle * 23)
    z = -0.95 - np.cos(angle) * (1.25 + hair.volume * 0.5) * 0.85 * wave
    canonical = np.stack([x, y, z], -1).astype(np.float32)
    normals = np.stack([np.sin(angle), np.full_like(angle, 0.15), 0.75 - np.cos(angle)], -1)
    return sheet(around_head(canonical, head, vertices), canonical, normals, part=Part.HAIR)


def _bun(head: Head, vertices: Array, place: tuple[float, float, float]) -> Patch:
    """A ball of hair."""
    around, up = np.meshgrid(np.linspace(-np.pi, np.pi, 25), np.linspace(-np.pi / 2, np.pi / 2, 13))
    normals = np.stack([np.cos(up) * np.sin(around), np.sin(up), np.cos(up) * np.cos(around)], -1)
    canonical = np.array(place) + BUN_RADIUS * normals
    return sheet(around_head(canonical, head, vertices), canonical, normals, part=Part.HAIR)


def around_head(canonical: Array, head: Head, vertices: Array) -> Array:
    """Canonical places [..., 3] round this person's head: a broad head has a broad curtain."""
    left, right = head.eyes(vertices)
    width = np.array([_width(vertices, head) / _width(head.mean, head), 1, 1])
    return np.asarray((left + right) / 2 + canonical * head.eye_distance * width)


def _width(vertices: Array, head: Head) -> float:
    return float(np.ptp(vertices[head.canonical[:, 1] > -1.9, 0]))
