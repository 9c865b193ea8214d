"""Patches of quads that carry what the picture needs at every point: place on the mean head, normal, texture."""

from dataclasses import dataclass

import numpy as np

from hyperdreambooth.portraits.arrays import Array, unit
from hyperdreambooth.portraits.head import Head, Part

LOWEST = -3.6  # canonical height below which nothing shows
TURNED_AWAY = -0.3  # z of a normal, from the camera, below which a quad is culled
CANONICAL, NORMAL, TEXTURE = slice(0, 3), slice(3, 6), slice(6, 8)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Quads by their corners. `clip_to_scalp`: only the points where hair grows are drawn."""

    points: Array  # [quads, 4, 3] in the head's own space
    attributes: Array  # [quads, 4, 8]: canonical place, normal, texture coordinates
    part: Array  # [quads] of Part
    clip_to_scalp: bool = False

    def select(self, chosen: Array) -> "Patch":
        return Patch(
            points=self.points[chosen],
            attributes=self.attributes[chosen],
            part=self.part[chosen],
            clip_to_scalp=self.clip_to_scalp,
        )


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
    """Without the quads that look away from the camera. Hair stays: its inside may show."""
    towards = patch.attributes[..., NORMAL].mean(1) @ rotation[2]
    return patch.select((towards > TURNED_AWAY) | (patch.part == Part.HAIR))
