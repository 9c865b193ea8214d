"""What can go wrong, as classes that know their HTTP status and code. `app/errors.py` renders them all."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar


class FailureCode(StrEnum):
    """Why a job ended without a result. Stable: callers branch on it, `docs/api.md` explains each."""

    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    FACE_TOO_SMALL = "face_too_small"
    BLURRED = "blurred"
    PROMPT_TOO_LONG = "prompt_too_long"
    UNSUITABLE_SIZE = "unsuitable_size"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    TIMED_OUT = "timed_out"
    WORKER_LOST = "worker_lost"
    ADAPTER_UNREADABLE = "adapter_unreadable"
    DEADLINE_PASSED = "deadline_passed"
    INTERNAL = "internal"


FAILURE_TITLES: dict[FailureCode, str] = {
    FailureCode.NO_FACE: "There is no face in this photo",
    FailureCode.SEVERAL_FACES: "There is more than one face in this photo",
    FailureCode.FACE_TOO_SMALL: "The face in this photo is too small",
    FailureCode.BLURRED: "The face in this photo is blurred",
    FailureCode.PROMPT_TOO_LONG: "The prompt has more words than the model reads",
    FailureCode.UNSUITABLE_SIZE: "The model draws no pictures of this size",
    FailureCode.DIVERGED: "The finetuning did not settle",
    FailureCode.OUT_OF_MEMORY: "The GPU's memory was not enough",
    FailureCode.STORAGE_UNAVAILABLE: "The object store was not reachable",
    FailureCode.TIMED_OUT: "The job ran for too long",
    FailureCode.WORKER_LOST: "The job's workers were lost",
    FailureCode.ADAPTER_UNREADABLE: "The subject's weights don't fit this model",
    FailureCode.DEADLINE_PASSED: "The deadline passed before the job began",
    FailureCode.INTERNAL: "Something went wrong on our side",
}


class AppError(Exception):
    """What nobody foresaw. Subclasses, which are foreseen, set `status`, `code` and `title`."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong on our side"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,  # noqa: ANN401 - JSON values
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        self.extra = extra


class Unauthorized(AppError):
    """No key, or not one of ours."""

    status, code, title = 401, "unauthorized", "A valid API key is needed"


class Forbidden(AppError):
    """The key lacks the scope."""

    status, code, title = 403, "forbidden", "This key may not do that"


class NotFound(AppError):
    """Unknown, erased, or another account's: all three look the same."""

    status, code, title = 404, "not_found", "There is nothing here by that id"


class MethodNotAllowed(AppError):
    """The path exists, the verb doesn't."""

    status, code, title = 405, "method_not_allowed", "This path does not take that method"


class BodyTooLarge(AppError):
    """More bytes than any request of this kind needs."""

    status, code, title = 413, "body_too_large", "The body of this request is too large"


class UnsupportedMediaType(AppError):
    """The body is of another type than this path reads."""

    status, code, title = 415, "unsupported_media_type", "This path does not read bodies of that type"


class RangeNotSatisfiable(AppError):
    """The range begins behind the end of the file."""

    status, code, title = 416, "range_not_satisfiable", "The file has no such range"


class InvalidRequest(AppError):
    """A field is missing, unknown or out of range."""

    status, code, title = 422, "invalid_request", "The request has errors"


class PhotoRejected(AppError):
    """The bytes are no picture that we take; `code` on the instance says why."""

    status, code, title = 422, "photo_rejected", "This photo can't be used"


class PhotoTooLarge(PhotoRejected):
    """More bytes than we take."""

    status, code, title = 413, "photo_too_large", "This photo has too many bytes"


class PhotoUnsupported(PhotoRejected):
    """Not a picture format that we read, whatever its label says."""

    status, code, title = 415, "photo_unsupported", "This is not a picture format that we read"


class PhotoTooManyPixels(PhotoRejected):
    """Its header promises more pixels than we decode."""

    code, title = "photo_too_many_pixels", "This photo has too many pixels"


class PhotoUnreadable(PhotoRejected):
    """Truncated or damaged."""

    code, title = "photo_unreadable", "This photo is damaged"


class PromptRejected(AppError):
    """The prompt holds what prompts may not hold."""

    status, code, title = 422, "prompt_rejected", "This prompt can't be used"


class ConsentRequired(AppError):
    """Nobody said whose face it is and that they agree."""

    status, code, title = 422, "consent_required", "The consent of the person in the photo is required"


class UnknownBaseModel(AppError):
    """This deployment doesn't serve that base model."""

    status, code, title = 422, "unknown_base_model", "This deployment does not serve that base model"


class NoHypernetwork(AppError):
    """The method needs a hypernetwork and the base model has none."""

    status, code, title = 422, "no_hypernetwork", "That base model has no hypernetwork; ask for the method `lidb`"


class NotCancelable(AppError):
    """An erasure, once asked for, is carried out."""

    status, code, title = 409, "not_cancelable", "A job of this kind can't be canceled"


class SubjectNotReady(AppError):
    """No weights yet: the subject's first job has not succeeded."""

    status, code, title, retryable = 409, "subject_not_ready", "This subject has no weights yet", True


class IdempotencyMismatch(AppError):
    """The key was used for another request."""

    status, code, title = 422, "idempotency_mismatch", "This Idempotency-Key was used for another request"


class IdempotencyInFlight(AppError):
    """The first request with the key is not done."""

    status, code, title, retryable = 409, "idempotency_in_flight", "A request with this key is under way", True


class UploadMissing(AppError):
    """Nothing has been put there yet."""

    status, code, title, retryable = 409, "upload_missing", "Nothing has been uploaded by that id yet", True


class UploadUsed(AppError):
    """Each upload is one photo of one subject."""

    status, code, title = 409, "upload_used", "This upload was used already"


class RateLimited(AppError):
    """More requests in a minute than a key may send."""

    status, code, title, retryable = 429, "rate_limited", "Too many requests", True


class TooManyJobs(AppError):
    """More unfinished jobs than an account may have."""

    status, code, title, retryable = 429, "too_many_jobs", "Too many jobs are queued or running", True


class TooManyImages(AppError):
    """More pictures in 24 hours than an account may ask for."""

    status, code, title, retryable = 429, "too_many_images", "Too many pictures in 24 hours", True


class QueueFull(AppError):
    """Better no than a wait without end."""

    status, code, title, retryable = 503, "queue_full", "The queue is full", True


class Unavailable(AppError):
    """The database or the bucket doesn't answer."""

    status, code, title, retryable = 503, "unavailable", "A part of the service is not reachable", True
