"""One person in one context, as a picture with everything that the styles need. START HERE for the renderer.

The next files to read: `identity.py` (who), `buffer.py` (how), `styles.py` (in which manner).
"""

from dataclasses import dataclass

import numpy as np

from hyperdreambooth.portraits.accessories import accessory_patches
from hyperdreambooth.portraits.albedo import albedo, is_clothes
from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.buffer import GBuffer, lookup
from hyperdreambooth.portraits.camera import Camera, make_camera
from hyperdreambooth.portraits.context import Context
from hyperdreambooth.portraits.hair import hair_patches
from hyperdreambooth.portraits.head import Head, Part
from hyperdreambooth.portraits.identity import Identity
from hyperdreambooth.portraits.shading import shade
from hyperdreambooth.portraits.shape import head_shape
from hyperdreambooth.portraits.surface import skin_patch, vertex_normals

OVERSAMPLING = 2  # pixels of the render along each pixel of the picture
MOUTH_OPEN = 0.05  # from here on teeth can show
BACKDROP, SKIN, EYES_AND_TEETH, HAIR, CLOTHES, ACCESSORY = range(6)


@dataclass(frozen=True, kw_only=True)
class Render:
    """All maps have the oversampled size; landmarks are in widths of the picture."""

    picture: Array  # [size, size, 3] 0..255
    regions: Array  # [size, size]: BACKDROP, SKIN, ...
    normals: Array  # [size, size, 3], zero on the backdrop
    landmarks: Array  # [5, 2]: the eye on the left of the picture, the other, nose tip, mouth corners likewise


def render(head: Head, identity: Identity, context: Context, *, size: int) -> Render:
    """Draw a person; `size` is of the finished picture, the render is OVERSAMPLING times as large."""
    vertices = head_shape(head, identity, context)
    normals = vertex_normals(vertices, head.quads)
    left, right = head.eyes(vertices)
    camera = make_camera(
        context, between_eyes=(left + right) / 2, eye_distance=head.eye_distance, pixels=size * OVERSAMPLING
    )
    skin = skin_patch(head, vertices, normals, mouth_open=context.mouth_open > MOUTH_OPEN)
    hair = hair_patches(head, identity, vertices, normals, hat=context.hat is not None)
    worn = accessory_patches(head, identity, context, vertices, normals)
    points = GBuffer.draw([skin, *hair, *worn], camera, head)
    picture = _backdrop(context, camera.pixels)
    picture[points.hit] = shade(points, albedo(head, identity, context, points), context)
    return Render(
        picture=np.clip(picture, 0, 255).astype(np.uint8),
        regions=_spread(points.hit, _region(points)),
        normals=_spread(points.hit, points.normal),
        landmarks=_landmarks(head, vertices, camera),
    )


def _backdrop(context: Context, pixels: int) -> Array:
    """A plain wall, a little darker towards the bottom and away from the light."""
    down, across = np.mgrid[:pixels, :pixels] / np.float32(pixels)
    shadow = np.clip(0.12 + 0.22 * down + 0.12 * across * np.sign(context.light[0]), 0, 1)
    return np.asarray(np.array(context.background, np.float32) * (1 - shadow[..., None]), np.float32)


def _region(points: GBuffer) -> Array:
    regions = np.full(len(points.part), SKIN, np.uint8)
    regions[is_clothes(points)] = CLOTHES
    regions[points.part == Part.HAIR] = HAIR
    regions[np.isin(points.part, (Part.GLASSES, Part.HAT))] = ACCESSORY
    regions[np.isin(points.part, (Part.LEFT_EYE, Part.RIGHT_EYE, Part.TEETH))] = EYES_AND_TEETH
    return regions


def _spread(hit: Array, rows: Array) -> Array:
    spread = np.zeros((*hit.shape, *rows.shape[1:]), rows.dtype)
    spread[hit] = rows
    return spread


def _landmarks(head: Head, vertices: Array, camera: Camera) -> Array:
    nose, mouth_right, mouth_left = _landmark_vertices(head)
    left, right = head.eyes(vertices)
    places = np.stack([right, left, vertices[nose], vertices[mouth_right], vertices[mouth_left]])
    canonical = np.zeros((5, 3), np.float32)  # all five lie on the head, which turns as a whole
    return camera.project(places, canonical)[:, :2] / camera.pixels


def _landmark_vertices(head: Head) -> tuple[int, int, int]:
    """Nose tip: the foremost vertex of the middle of the face. Mouth corners: the outermost of the lips."""
    x, y, z = head.canonical.T
    nose = int(np.argmax(np.where((np.abs(x) < 0.1) & (y > -0.9) & (y < -0.4), z, -np.inf)))
    body = head.quads[head.part == Part.BODY]
    texture = head.texture[head.part == Part.BODY]
    lips = np.unique(body[lookup(head.masks["lips"], texture.reshape(-1, 2)).reshape(-1, 4) > 0.5])
    return nose, int(lips[np.argmin(x[lips])]), int(lips[np.argmax(x[lips])])
