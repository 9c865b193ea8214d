"""Find the one face of a photo, judge whether it will do, and cut out head and shoulders.

The detector is YuNet: a box and five points (eyes, nose, corners of the mouth) per face, about 10 ms on one core.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hyperdreambooth.errors import Blurred, Box, FaceTooSmall, NoFace, SeveralFaces
from hyperdreambooth.onnx_weights import open_network

YUNET_FILE = "face_detection_yunet_2023mar_int8bq.onnx"
YUNET_SHA256 = "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"
DETECTOR_SIZE = 640  # the exported graph's fixed input
STRIDES = (8, 16, 32)
TINY_PHOTO = 160  # below this a photo is enlarged before the detector sees it

# Where the five points lie in a portrait, as fractions of its side: eyes 0.265 of the side apart, a little above the
# middle. SFace's published 112-pixel template, shrunk to a face 0.42 of the frame wide (ours: room for hair).
SFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
PORTRAIT_TEMPLATE = (SFACE_TEMPLATE - [56, 72]) * (0.42 / 56) + [0.5, 0.53]

# A second face counts unless its box has less than a ninth of the first one's area: a passer-by, a picture on the wall.
BYSTANDER_AREA = 1 / 9
SHARPNESS_SIZE = 64  # sharpness is judged on a portrait of this side, so that it does not depend on the camera
# Ours, measured: photographs 0.5, rendered faces at 64 pixels 0.24 and more; blurred by one pixel 0.05, by two 0.01.
MIN_SHARPNESS = 0.02

# Ours, measured on a photograph turned by up to 40 degrees: of 20 degrees the points tell 2 on a face 100 pixels wide
# and 17 on one of 220; after three looks at a portrait of this size all results are within 2 degrees of each other.
REFINEMENT_SIZE = 384
REFINEMENTS = 3

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Face:
    """A detected face, in pixels of the photo."""

    box: Box
    points: Array  # [5, 2]: the viewer's left eye, right eye, nose, left and right corner of the mouth
    score: float

    @property
    def area(self) -> float:
        return self.box[2] * self.box[3]


class FaceDetector:
    """YuNet, run on a letter-boxed copy of the photo."""

    def __init__(self, *, threads: int = 1, min_score: float = 0.6, max_overlap: float = 0.3) -> None:
        self._network = open_network(YUNET_FILE, YUNET_SHA256, threads=threads)
        self._outputs = [output.name for output in self._network.get_outputs()]
        self._min_score = min_score
        self._max_overlap = max_overlap

    def __call__(self, photo: Image.Image) -> list[Face]:
        """All faces, largest first. A face that fills the photo is found in a smaller copy alone, tried second."""
        for scale in (1.0, 0.4):
            faces = self._detect(photo.convert("RGB"), scale)
            if faces:
                return sorted(faces, key=lambda face: -face.area)
        return []

    def _detect(self, photo: Image.Image, scale: float) -> list[Face]:
        pixels, width, height = _letterboxed(photo, scale)
        outputs = dict(zip(self._outputs, self._network.run(None, {"input": pixels}), strict=True))
        found = np.concatenate([_decode(outputs, stride, self._min_score) for stride in STRIDES])
        found = found[_without_overlaps(found, self._max_overlap)]
        to_photo = np.array([photo.width / width, photo.height / height])
        return [
            Face(
                box=(*(row[0:2] * to_photo).tolist(), *(row[2:4] * to_photo).tolist()),
                points=row[4:14].reshape(5, 2) * to_photo,
                score=float(row[14]),
            )
            for row in found
        ]


def align_face(photo: Image.Image, detector: FaceDetector, *, size: int, min_face_pixels: int) -> Image.Image:
    """The portrait of the one person in the photo: square, upright, head and shoulders. Otherwise a FaceError."""
    photo = ImageOps.exif_transpose(photo).convert("RGB")
    face = find_face(photo, detector, min_face_pixels=min_face_pixels)
    points = refine_points(photo, face.points, detector)
    if sharpness(crop_portrait(photo, points, size=SHARPNESS_SIZE)) < MIN_SHARPNESS:
        raise Blurred("the face is not sharp", boxes=[face.box])
    return crop_portrait(photo, points, size=size)


def find_face(photo: Image.Image, detector: FaceDetector, *, min_face_pixels: int) -> Face:
    """The one face that is meant, large enough to learn from."""
    faces = detector(photo)
    if not faces:
        raise NoFace("no face was found")
    meant = [face for face in faces if face.area >= faces[0].area * BYSTANDER_AREA]
    boxes = [face.box for face in meant]
    if len(meant) > 1:
        raise SeveralFaces(f"{len(meant)} faces were found", boxes=boxes)
    side = min(faces[0].box[2:])
    if side < min_face_pixels:
        raise FaceTooSmall(f"the face is {side:.0f} pixels wide; {min_face_pixels} are needed", boxes=boxes)
    return meant[0]


def refine_points(photo: Image.Image, points: Array, detector: FaceDetector) -> Array:
    """Look again at the aligned face, enlarged: on small faces this detector hardly sees a tilt."""
    for _ in range(REFINEMENTS):
        faces = detector(crop_portrait(photo, points, size=REFINEMENT_SIZE))
        if not faces:
            break
        to_photo = similarity(PORTRAIT_TEMPLATE * REFINEMENT_SIZE, points)
        points = faces[0].points @ to_photo[:, :2].T + to_photo[:, 2]
    return points


def sharpness(portrait: Image.Image) -> float:
    """Variance of the Laplacian over the variance of the picture: how much of its contrast is fine detail."""
    gray = np.asarray(portrait.convert("L"), np.float64)
    laplacian = gray[1:-1, :-2] + gray[1:-1, 2:] + gray[:-2, 1:-1] + gray[2:, 1:-1] - 4 * gray[1:-1, 1:-1]
    return float(laplacian.var() / max(gray.var(), 1.0))


def crop_portrait(photo: Image.Image, points: Array, *, size: int) -> Image.Image:
    """Cut a square with the five points where PORTRAIT_TEMPLATE has them. Borders are continued outwards."""
    return warp_to(photo, points, PORTRAIT_TEMPLATE * size, size=size)


def warp_to(photo: Image.Image, points: Array, template: Array, *, size: int) -> Image.Image:
    """Rotate, scale and shift so that `points` fall on `template` in a picture of `size` x `size`."""
    shrink = math.sqrt(abs(np.linalg.det(similarity(template, points)[:, :2])))  # photo pixels per pixel of the result
    halvings = max(1, int(shrink / 2))  # PIL's transform reads single pixels: average large photos first
    if halvings > 1:
        photo, points = photo.reduce(halvings), (points + 0.5) / halvings - 0.5
    oversampling = max(1, math.ceil(shrink / halvings))
    to_photo = similarity((template + 0.5) * oversampling - 0.5, points)
    side = size * oversampling
    photo, to_photo = _with_margin(photo, to_photo, side)
    to_photo[:, 2] += 0.5 - to_photo[:, :2].sum(1) * 0.5  # PIL maps corners of pixels, our points are their centres
    warped = photo.transform((side, side), Image.Transform.AFFINE, tuple(to_photo.ravel()), Image.Resampling.BICUBIC)
    return warped.reduce(oversampling)


def similarity(source: Array, target: Array) -> Array:
    """The rotation, scale and shift from source to target with least squares (Umeyama 1991): a 2 x 3 matrix."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred, wanted = source - source_mean, target - target_mean
    left, singular, right = np.linalg.svd(wanted.T @ centred / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = left @ np.diag(signs) @ right
    scale = (singular * signs).sum() / (centred**2).sum(1).mean()
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])


def _with_margin(photo: Image.Image, to_photo: Array, side: int) -> tuple[Image.Image, Array]:
    """Continue the border outwards as far as the crop reaches: black corners would be learned as part of the person."""
    corners = np.array([[0, 0, 1], [side, 0, 1], [0, side, 1], [side, side, 1]]) @ to_photo.T
    before = np.ceil(np.maximum(0, 1 - corners.min(0))).astype(int)
    after = np.ceil(np.maximum(0, corners.max(0) + 2 - [photo.width, photo.height])).astype(int)
    rows, columns = (before[1], after[1]), (before[0], after[0])
    padded = Image.fromarray(np.pad(np.asarray(photo.convert("RGB")), (rows, columns, (0, 0)), mode="edge"))
    return padded, np.column_stack([to_photo[:, :2], to_photo[:, 2] + before])


def _letterboxed(photo: Image.Image, scale: float) -> tuple[NDArray[np.float32], int, int]:
    """The photo in the upper left of a black square, channels in BGR order: [1, 3, 640, 640], and its size there."""
    ratio = DETECTOR_SIZE / max(photo.size)
    ratio = ratio / 2 if max(photo.size) < TINY_PHOTO else min(ratio, 1.0)
    width, height = (max(1, round(length * ratio * scale)) for length in photo.size)
    pixels = np.zeros((DETECTOR_SIZE, DETECTOR_SIZE, 3), np.float32)
    resized = photo.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels[:height, :width] = np.asarray(resized, np.float32)[..., ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), width, height


def _decode(outputs: dict[str, NDArray[np.float32]], stride: int, min_score: float) -> Array:
    """Rows of x, y, width, height, five points, score for the cells of one stride: [found, 15]."""
    side = DETECTOR_SIZE // stride
    rows, columns = np.mgrid[:side, :side]
    cells = np.stack([columns.ravel(), rows.ravel()], 1).astype(np.float64)
    objectness = np.clip(outputs[f"obj_{stride}"][0, :, 0], 0, 1)
    scores = np.sqrt(np.clip(outputs[f"cls_{stride}"][0, :, 0], 0, 1) * objectness)
    hits = np.nonzero(scores >= min_score)[0]
    boxes, points = outputs[f"bbox_{stride}"][0, hits], outputs[f"kps_{stride}"][0, hits].reshape(-1, 5, 2)
    centres, sizes = (cells[hits] + boxes[:, :2]) * stride, np.exp(boxes[:, 2:]) * stride
    points = (points + cells[hits, None]) * stride
    return np.concatenate([centres - sizes / 2, sizes, points.reshape(-1, 10), scores[hits, None]], 1)


def _without_overlaps(found: Array, max_overlap: float) -> list[int]:
    """Non-maximum suppression: of boxes that overlap, keep the one with the best score."""
    kept: list[int] = []
    for index in np.argsort(-found[:, 14], kind="stable"):
        if all(_overlap(found[index], found[other]) < max_overlap for other in kept):
            kept.append(int(index))
    return kept


def _overlap(one: Array, other: Array) -> float:
    """Intersection over union of two boxes."""
    upper_left = np.maximum(one[:2], other[:2])
    lower_right = np.minimum(one[:2] + one[2:4], other[:2] + other[2:4])
    shared = np.prod(np.clip(lower_right - upper_left, 0, None))
    return float(shared / (np.prod(one[2:4]) + np.prod(other[2:4]) - shared))
