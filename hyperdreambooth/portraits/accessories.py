"""Glasses and hats: what a person wears in one picture and not in the next."""

import numpy as np

from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.context import Context, Glasses, HatKind
from hyperdreambooth.portraits.hair import around_head, hat_edge, thickness
from hyperdreambooth.portraits.head import Head, Part
from hyperdreambooth.portraits.identity import Identity
from hyperdreambooth.portraits.surface import Patch, sheet, shell

Place = tuple[float, float, float]
LENS_CENTRE = (0.5, -0.03)  # of the person's left eye; the other is its mirror image
IN_FRONT = 0.05  # of the bridge of the nose: glasses rest on it
EAR: Place = (1.38, 0.1, -1.1)  # where a temple ends
HAT_LIFT = 0.07  # off the hair
AXIS = -1.08  # z of the line, from neck to crown, that angles round the head are about
EDGE_ABOVE = 0.06  # a brim is sewn on a little above the crown's edge
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
        crown = _crown(head, identity, vertices, normals)
        patches.append(shell(head, crown, normals, chosen=_is_high(head), part=Part.HAT, grows=_covered))
        if context.hat.kind is not HatKind.BEANIE:
            patches.append(_brim(head, crown, context.hat.kind))
    return patches


def _glasses(head: Head, glasses: Glasses, vertices: Array) -> list[Patch]:
    """Two rings, the bridge between them, and the temples that run back to the ears."""
    ear = around_head(np.array(EAR), head, vertices)
    left, right = head.eyes(vertices)
    middle = (left + right) / 2
    x, y, z = head.canonical.T
    nose = (np.abs(x) < 0.12) & (np.abs(y) < 0.15) & (z > 0)
    front = float(vertices[nose, 2].max() - middle[2]) / head.eye_distance + IN_FRONT
    spread = np.array([np.linalg.norm(left - right) / head.eye_distance, 1, 1])
    ear_x = float(ear[0] - middle[0]) / head.eye_distance / spread[0]
    half, inner, outer = glasses.thickness / 2, 0.5 - glasses.width, 0.5 + glasses.width

    def placed(canonical: Array, normal: tuple[float, float, float]) -> Patch:
        points = middle + canonical * spread * head.eye_distance
        return sheet(points, canonical, np.broadcast_to(np.array(normal), canonical.shape), part=Part.GLASSES)

    patches = [placed(_strip((-inner, 0.03, front), (inner, 0.03, front), half), (0, 0.1, 1))]
    for side in (-1, 1):
        patches.append(placed(_ring(glasses, side, front), (0, 0.1, 1)))
        patches.append(placed(_strip((side * outer, 0.08, front), (side * ear_x, *EAR[1:]), half), (side, 0.1, 0.2)))
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


def _is_high(head: Head) -> Array:
    """Quads that a hat may lie on."""
    return np.asarray((head.part == Part.BODY) & (head.canonical[head.quads][..., 1].max(1) > 0.2))


def _crown(head: Head, identity: Identity, vertices: Array, normals: Array) -> Array:
    """Where the hat's cloth would be over each vertex: it lies on the hair, if there is any."""
    hair = np.maximum(thickness(identity, head.canonical), 0.05) * (not identity.hair.bald)
    return np.asarray(vertices + normals * ((hair + HAT_LIFT) * head.eye_distance)[:, None])


def _covered(canonical: Array, ears: Array) -> Array:
    return np.asarray(canonical[:, 1] > hat_edge(canonical[:, 2]))


def _brim(head: Head, crown: Array, kind: HatKind) -> Patch:
    """A cap's visor over the forehead; all round the head for a sun hat. From the crown's edge it slopes down."""
    widest = VISOR_ANGLE if kind is HatKind.CAP else np.pi
    angle, out = np.meshgrid(np.linspace(-widest, widest, 49), np.linspace(TUCKED, 1, 8))
    depth = DEPTHS[kind] * out * (np.cos(angle / widest * 1.3) if kind is HatKind.CAP else 1)
    outwards = np.stack([np.sin(angle), np.full_like(angle, -SLOPES[kind]), np.cos(angle)], -1) * depth[..., None]
    normals = np.stack([np.sin(angle) * 0.3, np.ones_like(angle), 0.3 * np.cos(angle)], -1)
    points = _edge(head, crown, angle[0]) + outwards * head.eye_distance
    return sheet(points, _edge(head, head.canonical, angle[0]) + outwards, normals, part=Part.HAT)


def _edge(head: Head, places: Array, angle: Array) -> Array:
    """`places` of the vertices at the hat's edge, at these angles round the head (0: the forehead). [angles, 3]"""
    x, y, z = head.canonical.T
    near = np.flatnonzero((np.abs(y - hat_edge(z) - EDGE_ABOVE) < 0.1) & (np.abs(x) < 1.3))
    turn = angle[:, None] - np.arctan2(x[near], z[near] - AXIS)
    turn = np.arctan2(np.sin(turn), np.cos(turn))  # -pi..pi
    weights = np.exp(-((turn / 0.2) ** 2))  # vertices are few, and in rows of different heights
    return np.asarray(weights / weights.sum(1, keepdims=True) @ places[near])
