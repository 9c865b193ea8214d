"""Light on skin: a wrapped lamp, a fill from the other side, a soft gloss, and the shadows a face always has."""

import numpy as np

from hyperdreambooth.portraits.arrays import Array, bump, unit
from hyperdreambooth.portraits.buffer import GBuffer
from hyperdreambooth.portraits.context import Context
from hyperdreambooth.portraits.head import Part

WRAP = 0.25  # how far light reaches round the edge of a face


def shade(points: GBuffer, colour: Array, context: Context) -> Array:
    """Albedo to what the camera sees. [hits, 3] both, 0..255 but not clipped"""
    light = unit(np.array(context.light, np.float32))
    lambert = np.clip((points.normal @ light + WRAP) / (1 + WRAP), 0, 1)
    fill = np.clip(points.normal @ np.array([-light[0], 0.2, 0.6], np.float32), 0, 1)
    ambient = context.ambient * (0.72 + 0.28 * points.normal[:, 1])
    brightness = (ambient + (1 - context.ambient * 0.55) * lambert**1.1 + 0.12 * fill) * _creases(points)
    # Light that has gone through skin comes out red: the shadow side loses green and blue.
    through_skin = 1 - (1 - lambert)[:, None] * np.array([0, 0.10, 0.14], np.float32)
    lit = colour * brightness[:, None] * through_skin + 255 * _gloss(points, light)[:, None]
    return np.asarray(lit * np.array([1 + context.warmth, 1, 1 - context.warmth]), np.float32)


def _gloss(points: GBuffer, light: Array) -> Array:
    halfway = unit(light + np.array([0, 0, 1], np.float32))
    hair = points.part == Part.HAIR
    highlight = np.clip(points.normal @ halfway, 0, 1) ** np.where(hair, 18, 26) * np.where(hair, 0.12, 0.10)
    return np.asarray(highlight * (points.part != Part.TEETH), np.float32)


def _creases(points: GBuffer) -> Array:
    """Nostrils, eye sockets and the shadow under the chin: a factor for the brightness."""
    x, y, z = points.canonical.T
    side, body = np.abs(x), points.part == Part.BODY
    nostrils = bump(side, centre=0.17, width=0.085) * bump(y, centre=-0.80, width=0.06) * (points.normal[:, 1] < 0.1)
    sockets = bump(side, centre=0.5, width=0.3) * bump(y, centre=0.14, width=0.10)
    chin = np.clip((-1.75 - y) / 0.3, 0, 1) * np.clip(1.6 + z, 0, 1) * np.clip(2.6 + y, 0, 1)
    return np.asarray((1 - 0.65 * nostrils * body) * (1 - 0.22 * sockets * body) * (1 - 0.35 * chin * body), np.float32)
