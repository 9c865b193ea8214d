"""The G-buffer: for every pixel, which point of which surface shows there.

Quads are covered with points, the nearest point of a pixel wins, and only winners get their attributes: colour is
then a function of the place on the mean head, so brows, lips and freckles ride on the shape.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from hyperdreambooth.portraits.arrays import Array, unit
from hyperdreambooth.portraits.camera import Camera
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.surface import CANONICAL, NORMAL, TEXTURE, Patch, facing

DENSITIES = np.array([2, 3, 5, 9, 14])  # points along each side of a quad ...
LONGEST_EDGE = np.array([1.0, 2.0, 4.0, 7.0])  # ... chosen by its longest edge in pixels
PIN_HOLE_DEPTH = 0.12  # in distances of the eyes
DEPTH_STEPS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class GBuffer:
    """Rows of the four arrays belong to the pixels in `hit`, in reading order."""

    hit: Array  # [height, width] bool
    canonical: Array  # [hits, 3]
    normal: Array  # [hits, 3] as the camera sees it
    texture: Array  # [hits, 2]
    part: Array  # [hits]

    @classmethod
    def draw(cls, patches: list[Patch], camera: Camera, head: Head) -> Self:
        screens, attributes, parts = [], [], []
        for patch in patches:
            screen, attribute, part = _cover(facing(patch, camera.rotation), camera, head)
            screens.append(screen)
            attributes.append(attribute)
            parts.append(part)
        winner = _close_pin_holes(*_nearest(np.concatenate(screens), camera.pixels))
        hit = winner >= 0
        chosen = np.concatenate(attributes)[winner[hit]]
        return cls(
            hit=hit,
            canonical=chosen[:, CANONICAL],
            normal=camera.turn(unit(chosen[:, NORMAL])),
            texture=chosen[:, TEXTURE],
            part=np.concatenate(parts)[winner[hit]],
        )


def lookup(mask: Array, texture: Array) -> Array:
    """A texture mask at texture coordinates (v up)."""
    size = mask.shape[0]
    column = np.clip((texture[:, 0] * size).astype(np.int64), 0, size - 1)
    row = np.clip(((1 - texture[:, 1]) * size).astype(np.int64), 0, size - 1)
    return np.asarray(mask[row, column])


def _cover(patch: Patch, camera: Camera, head: Head) -> tuple[Array, Array, Array]:
    """Points on the quads of a patch: screen [n, 3], attributes [n, 8], part [n]."""
    flat = patch.points.reshape(-1, 3)
    corners = camera.project(flat, patch.attributes[..., CANONICAL].reshape(-1, 3)).reshape(-1, 4, 3)
    edges = np.linalg.norm((corners - np.roll(corners, 1, axis=1))[..., :2], axis=-1).max(1)
    density = DENSITIES[np.searchsorted(LONGEST_EDGE, edges, side="right")]
    values = np.concatenate([corners, patch.attributes], axis=2)
    points, parts = [], []
    for count in np.unique(density):
        chosen = density == count
        points.append((_weights(int(count)) @ values[chosen]).reshape(-1, values.shape[-1]))
        parts.append(np.repeat(patch.part[chosen], count * count))
    point, part = np.concatenate(points), np.concatenate(parts)
    if patch.grows is not None:
        ears = lookup(head.masks["ears"], point[:, 3:][:, TEXTURE])
        grows = patch.grows(point[:, 3:][:, CANONICAL], ears)
        point, part = point[grows], part[grows]
    return point[:, :3], point[:, 3:], part


def _weights(count: int) -> Array:
    """Bilinear weights of count x count points in a quad. [count², 4]"""
    place = ((np.arange(count) + 0.5) / count).astype(np.float32)
    a, b = (grid.ravel() for grid in np.meshgrid(place, place))
    return np.stack([(1 - a) * (1 - b), a * (1 - b), a * b, (1 - a) * b], axis=1)


def _nearest(screen: Array, pixels: int) -> tuple[Array, Array]:
    """The index of the nearest point of each pixel (-1: none) and its depth. [pixels, pixels] both"""
    column, row = np.floor(screen[:, 0]).astype(np.int64), np.floor(screen[:, 1]).astype(np.int64)
    inside = np.flatnonzero((column >= 0) & (column < pixels) & (row >= 0) & (row < pixels))
    depth = screen[inside, 2]
    low, span = float(depth.min()), float(np.ptp(depth)) + 1e-6
    # Depth in the high half and the index in the low half of one integer: the largest is the nearest.
    key = (((depth - low) / span * DEPTH_STEPS).astype(np.int64) << 32) | inside
    nearest = np.full(pixels * pixels, -1, np.int64)
    np.maximum.at(nearest, row[inside] * pixels + column[inside], key)
    winner = np.where(nearest >= 0, nearest & 0xFFFFFFFF, -1).reshape(pixels, pixels)
    return winner, np.where(winner >= 0, screen[np.maximum(winner, 0), 2], -np.inf)


def _close_pin_holes(winner: Array, depth: Array) -> Array:
    """Nothing there, or a surface far behind what is around it on three sides: take the nearest neighbour."""
    for _ in range(2):
        shifts = [(step, axis) for step in (1, -1) for axis in (0, 1)]
        around = np.stack([np.roll(winner, step, axis) for step, axis in shifts])
        depths = np.stack([np.roll(depth, step, axis) for step, axis in shifts])
        hole = (depths > depth + PIN_HOLE_DEPTH).sum(0) >= 3
        nearest = np.take_along_axis(around, depths.argmax(0)[None], 0)[0]
        winner, depth = np.where(hole, nearest, winner), np.where(hole, depths.max(0), depth)
    return winner
