"""Glasses and hats: what a person wears in one picture and not in the next."""

import numpy as np

from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.context import Context, Glasses, HatKind
from hyperdreambooth.portraits.hair import SKULL_CENTRE, SKULL_RADII, thickness
from hyperdreambooth.portraits.head import Head, Part
from hyperdreambooth.portraits.identity import Identity
from hyperdreambooth.portraits.surface import Patch, sheet, shell

Place = tuple[float, float, float]
LENS_CENTRE = (0.5, -0.03)  # of the person's left eye; the other is its mirror image
IN_FRONT = 0.05  # of the bridge of the nose: glasses rest on it
EAR: Place = (1.38, 0.1, -1.1)  # where a temple ends
HAT_LIFT = 0.07  # off the hair
VISOR_ANGLE = 1.0  # to either side
DEPTHS = {HatKind.CAP: 0.85, HatKind.SUN_HAT: 0.75}  # of visor and brim
TUCKED = -0.15  # how much of a brim is under the crown
SLOPES = {HatKind.CAP: 0.45, HatKind.SUN_HAT: 0.3}


def accessory_patches(head: Head, identity: Identity, context: Context, vertices: Array, normals: Array) -> list[Patch]:
    """What is worn in this picture: nothing, one, or both."""
    patches = []
    if context.glasses:
        patches += _glasses(head, context.glasses, vertices)
    if context.hat:
        patches.append(_crown(head, identity, vertices, normals))
        if context.hat.kind is not HatKind.BEANIE:
            patches.append(_brim(head, vertices, context.hat.kind))
    return patches


def under_hat(canonical: Array) -> Array:
    """Is this place covered by whatever hat? A little above its edge, so that no skin shows between hat and hair."""
    return np.asarray(canonical[:, 1] > hat_edge(canonical[:, 2]) + 0.04)


def hat_edge(z: Array) -> Array:
    """Canonical height of the hat's lower edge: higher over the forehead than at the back."""
    return np.asarray(0.72 + 0.12 * z)


def _glasses(head: Head, glasses: Glasses, vertices: Array) -> list[Patch]:
    """Two rings, the bridge between them, and the temples that run back to the ears."""
    left, right = head.eyes(vertices)
    middle = (left + right) / 2
    x, y, z = head.canonical.T
    nose = (np.abs(x) < 0.12) & (np.abs(y) < 0.15) & (z > 0)
    front = float(vertices[nose, 2].max() - middle[2]) / head.eye_distance + IN_FRONT
    spread = np.array([np.linalg.norm(left - right) / head.eye_distance, 1, 1])
    half, inner, outer = glasses.thickness / 2, 0.5 - glasses.width, 0.5 + glasses.width

    def placed(canonical: Array, normal: tuple[float, float, float]) -> Patch:
        points = middle + canonical * spread * head.eye_distance
        return sheet(points, canonical, np.broadcast_to(np.array(normal), canonical.shape), part=Part.GLASSES)

    patches = [placed(_strip((-inner, 0.03, front), (inner, 0.03, front), half), (0, 0.1, 1))]
    for side in (-1, 1):
        patches.append(placed(_ring(glasses, side, front), (0, 0.1, 1)))
        patches.append(placed(_strip((side * outer, 0.08, front), (side * EAR[0], *EAR[1:]), half), (side, 0.1, 0.2)))
    return patches


def _ring(glasses: Glasses, side: int, front: float) -> Array:
    """Between two superellipses: [3, 49, 3] canonical."""
    angle = np.linspace(0, 2 * np.pi, 49)
    power = 2 / glasses.squareness
    across = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    up = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    rims = []
    for widen in np.linspace(-0.5, 0.5, 3) * glasses.thickness:
        x = side * LENS_CENTRE[0] + (glasses.width + widen) * across
        y = LENS_CENTRE[1] + (glasses.height + widen) * up
        rims.append(np.stack([x, y, np.full_like(x, front)], -1))
    return np.stack(rims)


def _strip(start: Place, end: Place, half: float) -> Array:
    """A band between two places, twice `half` high: [2, 12, 3] canonical."""
    along, up = np.linspace(start, end, 12), np.array([0, half, 0])
    return np.stack([along - up, along + up])


def _crown(head: Head, identity: Identity, vertices: Array, normals: Array) -> Patch:
    """The hat's cloth lies on the hair."""
    heights = head.canonical[head.quads][..., 1]
    chosen = (head.part == Part.BODY) & (heights.max(1) > 0.2)
    lift = np.maximum(thickness(identity, head.canonical), 0.05) + HAT_LIFT
    lifted = vertices + normals * (lift * head.eye_distance)[:, None]
    return shell(head, lifted, normals, chosen=chosen, part=Part.HAT, grows=_covered)


def _covered(canonical: Array, ears: Array) -> Array:
    return np.asarray(canonical[:, 1] > hat_edge(canonical[:, 2]))


def _brim(head: Head, vertices: Array, kind: HatKind) -> Patch:
    """A cap's visor over the forehead; all round the head for a sun hat. It slopes down."""
    widest = VISOR_ANGLE if kind is HatKind.CAP else np.pi
    angle, out = np.meshgrid(np.linspace(-widest, widest, 49), np.linspace(TUCKED, 1, 8))
    depths = DEPTHS[kind] * out * (np.cos(angle / widest * 1.3) if kind is HatKind.CAP else 1)
    x = np.sin(angle) * (SKULL_RADII[0] + depths)
    z = SKULL_CENTRE[2] + np.cos(angle) * (SKULL_RADII[2] + depths)
    y = hat_edge(SKULL_CENTRE[2] + np.cos(angle) * SKULL_RADII[2]) + 0.04 - SLOPES[kind] * depths
    canonical = np.stack([x, y, z], -1)
    normals = np.stack([np.sin(angle) * 0.3, np.ones_like(angle), 0.3 * np.cos(angle)], -1)
    middle = np.add(*head.eyes(vertices)) / 2
    return sheet(middle + canonical * head.eye_distance, canonical, normals, part=Part.HAT)
