"""Patches of quads that carry what the picture needs at every point: place on the mean head, normal, texture."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hyperdreambooth.portraits.arrays import Array, unit
from hyperdreambooth.portraits.head import Head, Part

LOWEST = -3.6  # canonical height below which nothing shows
TURNED_AWAY = -0.3  # z of a normal, from the camera, below which a quad is culled
CANONICAL, NORMAL, TEXTURE = slice(0, 3), slice(3, 6), slice(6, 8)
TWO_SIDED = (Part.HAIR, Part.GLASSES, Part.HAT)  # sheets, whose inside may show
Grows = Callable[[Array, Array], Array]  # canonical places [n, 3] and the ear mask there [n] to bool [n]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Quads by their corners. With `grows`, only the points that it says yes to are drawn."""

    points: Array  # [quads, 4, 3] in the head's own space
    attributes: Array  # [quads, 4, 8]: canonical place, normal, texture coordinates
    part: Array  # [quads] of Part
    grows: Grows | None = None

    def select(self, chosen: Array) -> "Patch":
        return replace(self, points=self.points[chosen], attributes=self.attributes[chosen], part=self.part[chosen])


def vertex_normals(vertices: Array, quads: Array) -> Array:
    """Smooth normals: each vertex averages its quads. [vertices, 3]"""
    corners = vertices[quads]
    faces = unit(np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]))
    index = quads.T.ravel()
    sums = [np.bincount(index, np.tile(faces[:, axis], 4), minlength=len(vertices)) for axis in range(3)]
    return unit(np.stack(sums, 1).astype(np.float32))


def make_patch(points: Array, canonical: Array, normals: Array, *, quads: Array, texture: Array, part: Array) -> Patch:
    """Gather per-vertex arrays into a patch; texture coordinates belong to corners, because seams split them."""
    attributes = np.concatenate([canonical[quads], normals[quads], texture], axis=2)
    return Patch(points=points[quads], attributes=attributes.astype(np.float32), part=part)


def sheet(points: Array, canonical: Array, normals: Array, *, part: Part) -> Patch:
    """A grid [rows, columns, 3] as a patch without texture: four neighbours make a quad."""
    rows, columns, _ = points.shape
    corner = np.arange(rows * columns).reshape(rows, columns)
    quads = np.stack([corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]], -1).reshape(-1, 4)
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    points, canonical, normals = (
        grid.reshape(-1, 3).astype(np.float32) for grid in (points, canonical, normals / length)
    )
    return make_patch(
        points,
        canonical,
        normals,
        quads=quads,
        texture=np.zeros((len(quads), 4, 2), np.float32),
        part=np.full(len(quads), part, np.int8),
    )


def shell(head: Head, points: Array, normals: Array, *, chosen: Array, part: Part, grows: Grows) -> Patch:
    """Some quads of the head, their vertices lifted off it to `points`, where something grows or lies on it."""
    patch = make_patch(
        points,
        head.canonical,
        normals,
        quads=head.quads[chosen],
        texture=head.texture[chosen],
        part=np.full(int(chosen.sum()), part, np.int8),
    )
    return replace(patch, grows=grows)


def skin_patch(head: Head, vertices: Array, normals: Array, *, mouth_open: bool) -> Patch:
    """The bare head with its eyeballs, and with teeth where the mouth is open."""
    shown = head.canonical[head.quads][..., 1].min(1) > LOWEST
    if not mouth_open:
        shown &= head.part != Part.TEETH
    return make_patch(
        vertices,
        head.canonical,
        normals,
        quads=head.quads[shown],
        texture=head.texture[shown],
        part=head.part[shown],
    )


def facing(patch: Patch, rotation: Array) -> Patch:
    """Without the quads that look away from the camera, but for sheets."""
    towards = patch.attributes[..., NORMAL].mean(1) @ rotation[2]
    return patch.select((towards > TURNED_AWAY) | np.isin(patch.part, TWO_SIDED))
