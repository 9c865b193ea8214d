"""What can be wrong with a photo, a finetuning or a stored file. No torch here: the bookkeeping reads it too."""

from collections.abc import Sequence
from typing import ClassVar

Box = tuple[float, float, float, float]  # x, y, width, height in pixels of the photo


class PersonalizeError(Exception):
    """Why one subject of a batch got no adapter. Its neighbours are untouched."""

    code: ClassVar[str] = "internal"


class Diverged(PersonalizeError):
    """The finetuning ended in numbers that are not finite."""

    code = "diverged"


class FaceError(PersonalizeError):
    """A photo is refused. `boxes` are the faces that were found, largest first; `photo` is its place among several."""

    code: ClassVar[str] = "face_error"

    def __init__(self, message: str, *, boxes: Sequence[Box] = ()) -> None:
        super().__init__(message)
        self.boxes = tuple(boxes)
        self.photo = 0


class NoFace(FaceError):
    """Nothing in the photo looks like a face."""

    code = "no_face"


class SeveralFaces(FaceError):
    """More than one person could be meant."""

    code = "several_faces"


class FaceTooSmall(FaceError):
    """Too few pixels to learn a face from."""

    code = "face_too_small"


class Blurred(FaceError):
    """The face is out of focus or shaken."""

    code = "blurred"


class UnsuitableSize(Exception):
    """The base model draws no pictures of this size."""

    code: ClassVar[str] = "unsuitable_size"


class AdapterError(Exception):
    """A stored adapter cannot be used."""

    code: ClassVar[str] = "adapter_error"


class NotAnAdapter(AdapterError):
    """The bytes are no adapter file, or a damaged one."""

    code = "not_an_adapter"


class UnknownFormat(AdapterError):
    """An adapter of a format that this version does not read."""

    code = "unknown_adapter_format"


class WrongBaseModel(AdapterError):
    """The adapter was made for other weights: attached here it would draw a stranger."""

    code = "wrong_base_model"


class AuxMismatch(AdapterError):
    """This machine draws other aux matrices than the one that made the adapter."""

    code = "aux_mismatch"


class WeightsDamaged(Exception):
    """A file of shipped or trained weights is not the one that was published."""
