"""From the head's own space to the picture: the head turns on the neck, a mild perspective, then pixels."""

from dataclasses import dataclass

import numpy as np

from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.context import Context

FOCUS_DISTANCE = 14.0  # from the pivot to the camera, in distances of the eyes
EYE_SPAN = 0.185  # distance of the eyes at zoom 1, in widths of the picture
NECK_TOP, NECK_BOTTOM = -1.6, -2.6  # canonical height between which the turn of the head fades out


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Screen coordinates are pixels (x right, y down) and depth in distances of the eyes (nearer is larger)."""

    rotation: Array  # [3, 3]
    pivot: Array  # [3]
    eye_distance: float
    pixels: int
    zoom: float
    shift: tuple[float, float]

    def project(self, points: Array, canonical: Array) -> Array:
        """[n, 3] points, and where they lie on the mean head, to [n, 3] screen coordinates."""
        centred = (points - self.pivot) / self.eye_distance
        turned = np.clip((canonical[:, 1:2] - NECK_BOTTOM) / (NECK_TOP - NECK_BOTTOM), 0, 1)
        x, y, z = (centred @ self.rotation.T * turned + centred * (1 - turned)).T
        scale = self.pixels * EYE_SPAN * self.zoom * FOCUS_DISTANCE / (FOCUS_DISTANCE - z)
        across = self.pixels * (0.5 + self.shift[0]) + x * scale
        down = self.pixels * (0.485 + self.shift[1]) - y * scale
        return np.stack([across, down, z], 1).astype(np.float32)

    def turn(self, normals: Array) -> Array:
        """[n, 3] normals as the camera sees them; z points to the camera."""
        return np.asarray(normals @ self.rotation.T, np.float32)


def make_camera(context: Context, *, between_eyes: Array, eye_distance: float, pixels: int) -> Camera:
    """Look at the point inside the head around which it turns."""
    return Camera(
        rotation=_rotation(context),
        pivot=(between_eyes - np.array([0, 0.35, 0.9]) * eye_distance).astype(np.float32),
        eye_distance=eye_distance,
        pixels=pixels,
        zoom=context.zoom,
        shift=context.shift,
    )


def _rotation(context: Context) -> Array:
    yaw, pitch, roll = np.radians([context.yaw, context.pitch, context.roll])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x @ about_y, np.float32)
