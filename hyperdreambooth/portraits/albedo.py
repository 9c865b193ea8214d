"""The colour of every point before light falls on it, as a function of its place on the mean head.

Places are canonical: the origin between the eyes, the distance of the eyes as the unit, x to the person's left, y up.
"""

import numpy as np

from hyperdreambooth.portraits.arrays import Array, bump
from hyperdreambooth.portraits.buffer import GBuffer, lookup
from hyperdreambooth.portraits.context import Context
from hyperdreambooth.portraits.head import Head, Part
from hyperdreambooth.portraits.identity import Brows, Identity
from hyperdreambooth.portraits.noise import value_noise

IRIS_RADIUS = 0.118
TEETH_COLOUR = (232, 228, 216)
EYE_WHITE = np.array([236, 232, 228], np.float32)


def albedo(head: Head, identity: Identity, context: Context, points: GBuffer) -> Array:
    """RGB, 0..255, for each row of the buffer. [hits, 3]"""
    colour = _skin(head, identity, points)
    colour = _face_hair(head, identity, points, colour)
    for part, eye in ((Part.LEFT_EYE, head.left_eye), (Part.RIGHT_EYE, head.right_eye)):
        rows = points.part == part
        colour[rows] = _eyeball(identity, context, points.canonical[rows] - head.canonical[eye].mean(0))
    colour[points.part == Part.TEETH] = TEETH_COLOUR
    hair = points.part == Part.HAIR
    colour[hair] = _strands(identity, points.canonical[hair])
    if context.glasses:
        colour[points.part == Part.GLASSES] = context.glasses.frame
    if context.hat:
        cloth = points.part == Part.HAT
        colour[cloth] = np.array(context.hat.colour, np.float32) * _mottle(identity, points.canonical[cloth], 0.15)
    clothes = is_clothes(points)
    colour[clothes] = np.array(context.clothes, np.float32) * _mottle(identity, points.canonical[clothes], 0.08)
    return colour


def is_clothes(points: GBuffer) -> Array:
    """Below a round collar."""
    x, y, _ = points.canonical.T
    collar = -2.55 - 0.42 * np.exp(-((x / 0.7) ** 2)) + 0.15 * np.clip(np.abs(x) - 0.6, 0, 2)
    return np.asarray((points.part == Part.BODY) & (y < collar))


def _mottle(identity: Identity, canonical: Array, strength: float) -> Array:
    x, y, z = canonical.T
    cloud = value_noise(x, y + z, seed=identity.seed % 7919, frequency=3) - 0.5
    return np.asarray(1 + strength * cloud, np.float32)[:, None]


def _skin(head: Head, identity: Identity, points: GBuffer) -> Array:
    x, y, _ = points.canonical.T
    side = np.abs(x)
    colour: Array = identity.skin.astype(np.float32) * _mottle(identity, points.canonical, 0.05)
    cheeks, nose = bump(side, centre=0.62, width=0.25) * bump(y, centre=-0.62, width=0.25), _round(x, y + 0.62, 0.16)
    red = (cheeks + 0.7 * nose + 0.5 * lookup(head.masks["ears"], points.texture))[:, None]
    colour = colour * (1 + red * np.array([0.04, -0.09, -0.08], np.float32))
    colour *= _ageing(identity.age, x, y)
    if identity.freckles:
        spots = value_noise(x, y, seed=identity.seed % 1009, frequency=26) > 0.72
        where = bump(side, centre=0.4, width=0.45) * bump(y, centre=-0.42, width=0.28)
        colour *= (1 - 0.30 * identity.freckles * spots * where)[:, None]
    for mole_x, mole_y in identity.moles:
        colour *= (1 - 0.62 * _round(x - mole_x, y - mole_y, 0.035))[:, None]
    lips = lookup(head.masks["lips"], points.texture)[:, None]
    colour = colour * (1 - lips) + identity.lips.astype(np.float32) * lips
    return np.asarray(colour * (1 - 0.8 * lookup(head.masks["inside-mouth"], points.texture))[:, None], np.float32)


def _round(x: Array, y: Array, width: float) -> Array:
    return bump(x, centre=0, width=width) * bump(y, centre=0, width=width)


def _ageing(age: float, x: Array, y: Array) -> Array:
    """Bags under the eyes, folds beside the nose, lines on the forehead: a factor for the colour."""
    side = np.abs(x)
    bags = bump(side, centre=0.5, width=0.2) * bump(y, centre=-0.24, width=0.07)
    folds = bump(side, centre=0.46 - 0.12 * (-y - 0.7), width=0.035) * (y < -0.62) * (y > -1.12)
    lines = (y > 0.55) * (np.abs(np.sin(y * 22)) > 0.93) * (side < 0.7)
    wrinkles = np.clip(age - 0.45, 0, 1) * (folds + 0.8 * lines)
    return np.asarray((1 - 0.13 * age * bags) * (1 - 0.35 * wrinkles), np.float32)[:, None]


def _face_hair(head: Head, identity: Identity, points: GBuffer, colour: Array) -> Array:
    """Brows, beard, moustache, and the dark line of the lashes."""
    x, y, _ = points.canonical.T
    hair = identity.hair.colour.astype(np.float32)
    brows = _brows(identity.brows, points.canonical, seed=identity.seed)[:, None]
    colour = colour * (1 - brows) + hair * 0.75 * brows
    if identity.beard or identity.moustache:
        beard = _beard(identity, points.canonical) * (1 - lookup(head.masks["lips"], points.texture))
        colour = colour * (1 - beard[:, None]) + hair * 0.8 * beard[:, None]
    side = np.abs(x)
    lashes = bump(side, centre=0.5, width=0.26, power=4) * bump(y, centre=0.055 - 0.45 * (side - 0.5) ** 2, width=0.03)
    return np.asarray(colour * (1 - (0.25 if identity.is_man else 0.45) * lashes)[:, None], np.float32)


def _sigmoid(t: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(t, -60, 60))), np.float32)


def _brows(brows: Brows, canonical: Array, *, seed: int) -> Array:
    x, y, z = canonical.T
    side = np.abs(x)
    middle = 0.40 + brows.height + brows.tilt * (side - 0.52) + brows.arch * (np.cos((side - 0.52) * 4.2) - 0.3)
    width = brows.thickness * np.clip(1.2 - 1.1 * (side - 0.22) / 0.75, 0.25, 1)
    ends = _sigmoid((side - 0.20) * 40) * _sigmoid((0.92 - side) * 30) * (z > -0.9)
    hairs = 1 + 0.5 * (value_noise(x * 2, y, seed=seed % 97, frequency=18) - 0.5)
    return np.asarray(np.clip(bump(y, centre=middle, width=width, power=4) * ends * brows.density * hairs, 0, 1))


def _beard(identity: Identity, canonical: Array) -> Array:
    x, y, z = canonical.T
    side = np.abs(x)
    jaw = _sigmoid((-0.98 - y + 0.75 * np.clip(side - 0.42, 0, 1)) * 18) * (y > -2.15) * (z > -1.35)
    lip = bump(y, centre=-0.96, width=0.085, power=4) * (side < 0.46)
    hairs = np.clip(0.75 + 0.5 * value_noise(x, y, seed=identity.seed % 89, frequency=20), 0, 1)
    return np.asarray(np.clip(identity.beard * jaw + identity.moustache * lip, 0, 1) * hairs, np.float32)


def _eyeball(identity: Identity, context: Context, place: Array) -> Array:
    """`place` is relative to the centre of the eyeball. [n, 3] in, [n, 3] out"""
    x, y, _ = place.T
    radius = np.hypot(x - context.gaze[0] * 0.2, y - context.gaze[1] * 0.2)
    colour = np.repeat(EYE_WHITE[None], len(place), 0)
    colour[radius < IRIS_RADIUS] = identity.iris
    colour[(radius > IRIS_RADIUS * 0.84) & (radius < IRIS_RADIUS)] = identity.iris * 0.5
    colour[radius < IRIS_RADIUS * 0.42] = (14, 12, 12)
    colour[np.hypot(x + 0.03, y - 0.04) < 0.022] = (255, 255, 255)
    under_the_lid = np.clip(1.02 - 3.75 * np.clip(y - 0.03, 0, 1), 0.55, 1)
    return np.asarray(colour * under_the_lid[:, None], np.float32)


def _strands(identity: Identity, canonical: Array) -> Array:
    x, y, z = canonical.T
    around = np.arctan2(x, z + 0.9) * 9
    strands = value_noise(around, y * (1 + 2 * identity.hair.curl), seed=identity.seed % 71, frequency=2.2) - 0.5
    if identity.hair.ringlets:
        strands = 3 * (value_noise(around / 4, y, seed=identity.seed % 71, frequency=6) - 0.5)
    return np.asarray(identity.hair.colour * (1 + 0.45 * strands[:, None]), np.float32)
