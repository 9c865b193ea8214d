"""Hair: a shell lifted off the scalp, and for long hair a curtain behind the face."""

import numpy as np

from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.head import Head, Part
from hyperdreambooth.portraits.identity import Hair, Identity
from hyperdreambooth.portraits.noise import value_noise
from hyperdreambooth.portraits.surface import Patch, make_patch

LONG = 0.3  # length from which hair hangs down
CURTAIN_COLUMNS, CURTAIN_ROWS = 48, 40


def hairline(hair: Hair, x: Array) -> Array:
    """Canonical height at which hair starts, over the face."""
    return np.asarray(1.02 + hair.line * 0.5 - 0.30 * x**2 + 0.10 * np.cos(3 * x))


def on_scalp(hair: Hair, canonical: Array, ears: Array) -> Array:
    """Does hair grow here? `ears` is the ear mask at the same points."""
    x, y, z = canonical.T
    sideburn = (np.abs(x) > 0.98) & (z < -0.35) & (y > -0.15) & (z > -1.6)
    grows = ((y > hairline(hair, x)) | (_back(canonical) & (y > -0.75)) | sideburn) & (ears < 0.3)
    return np.asarray(grows & (y < 1.0) if hair.bald else grows)


def hair_patches(head: Head, identity: Identity, vertices: Array, normals: Array) -> list[Patch]:
    """What grows on this person: always a shell, and a curtain if it is long."""
    patches = [_shell(head, identity, vertices, normals)]
    if identity.hair.length > LONG and not identity.hair.bald:
        patches.append(_curtain(head, identity, vertices))
    return patches


def _back(canonical: Array) -> Array:
    return np.asarray(canonical[:, 2] < -0.95)


def _shell(head: Head, identity: Identity, vertices: Array, normals: Array) -> Patch:
    heights, depths = head.canonical[head.quads][..., 1], head.canonical[head.quads][..., 2]
    candidates = (head.part == Part.BODY) & ((heights.max(1) > 0.5) | (depths.min(1) < -0.3)) & (heights.min(1) > -1.0)
    lift = _thickness(identity, head.canonical) * head.eye_distance
    patch = make_patch(
        vertices + normals * lift[:, None],
        head.canonical,
        normals,
        quads=head.quads[candidates],
        texture=head.texture[candidates],
        part=np.full(int(candidates.sum()), Part.HAIR, np.int8),
    )
    return Patch(points=patch.points, attributes=patch.attributes, part=patch.part, clip_to_scalp=True)


def _thickness(identity: Identity, canonical: Array) -> Array:
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
    canonical = np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32)
    normals = np.stack([np.sin(angle), np.full_like(angle, 0.15), 0.75 - np.cos(angle)], -1).reshape(-1, 3)
    left, right = head.eyes(vertices)
    width = np.array([_width(vertices, head) / _width(head.mean, head), 1, 1])  # a broad head has a broad curtain
    quads = _grid_quads(CURTAIN_ROWS, CURTAIN_COLUMNS)
    return make_patch(
        ((left + right) / 2 + canonical * head.eye_distance * width).astype(np.float32),
        canonical,
        (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32),
        quads=quads,
        texture=np.zeros((len(quads), 4, 2), np.float32),
        part=np.full(len(quads), Part.HAIR, np.int8),
    )


def _width(vertices: Array, head: Head) -> float:
    return float(np.ptp(vertices[head.canonical[:, 1] > -1.9, 0]))


def _grid_quads(rows: int, columns: int) -> Array:
    corner = np.arange(rows * columns).reshape(rows, columns)
    return np.stack([corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]], -1).reshape(-1, 4)
