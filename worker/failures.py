"""From an exception to why a job failed and whether another attempt may help. Pure: no I/O, no torch."""

from dataclasses import dataclass, field
from typing import Any

from core.errors import FailureCode
from core.lifecycle import JobStatus
from core.storage import ObjectMissing, StorageUnavailable
from hyperdreambooth.errors import AdapterError, Diverged, FaceError, UnsuitableSize
from worker.ledger import RanTooLong


class OutOfGpuMemory(Exception):
    """The batch does not fit; half of it may."""


class PromptTooLong(Exception):
    """The prompt has more tokens than the text encoder reads."""


class SubjectErased(Exception):
    """The person was erased while the job ran: its result has no home."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What the job's row will say, and whether the job goes back to the queue instead."""

    code: FailureCode
    detail: str
    retry: bool = False
    status: JobStatus = JobStatus.FAILED
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def outlasts_attempts(self) -> bool:
        """The bucket's absence is no fault of the job: it waits for as long as its caller does."""
        return self.code is FailureCode.STORAGE_UNAVAILABLE

    @property
    def is_ours(self) -> bool:
        """A bug or a broken machine: somebody should read the traceback."""
        return self.code is FailureCode.INTERNAL

    def to_json(self) -> dict[str, Any]:
        """The job's `error`."""
        return {"code": self.code.value, "detail": self.detail, "retryable": self.retry, **self.extra}


# Failures that say the same whatever the exception holds, most special first.
_PLAIN: tuple[tuple[type[BaseException], Failure], ...] = (
    (OutOfGpuMemory, Failure(code=FailureCode.OUT_OF_MEMORY, detail="Not enough GPU memory", retry=True)),
    (
        StorageUnavailable,
        Failure(code=FailureCode.STORAGE_UNAVAILABLE, detail="The object store did not answer", retry=True),
    ),
    (RanTooLong, Failure(code=FailureCode.TIMED_OUT, detail="The job ran for longer than a job may")),
    (Diverged, Failure(code=FailureCode.DIVERGED, detail="The finetuning diverged; with another seed it may not")),
    (ObjectMissing, Failure(code=FailureCode.INTERNAL, detail="What the job was to work on is gone")),
)


def classify(error: BaseException) -> Failure:
    """Sort a failure, once, at the worker's edge. What callers read never quotes an exception that isn't ours."""
    match error:
        case FaceError():
            boxes = [[round(side) for side in box] for box in error.boxes]
            extra = {"boxes": boxes, "photo": error.photo}
            return Failure(code=FailureCode(error.code), detail=str(error), status=JobStatus.REJECTED, extra=extra)
        case PromptTooLong():
            return Failure(code=FailureCode.PROMPT_TOO_LONG, detail=str(error), status=JobStatus.REJECTED)
        case UnsuitableSize():
            return Failure(code=FailureCode.UNSUITABLE_SIZE, detail=str(error), status=JobStatus.REJECTED)
        case AdapterError():
            return Failure(code=FailureCode.ADAPTER_UNREADABLE, detail=str(error))
        case _:
            internal = Failure(code=FailureCode.INTERNAL, detail="Something went wrong on our side", retry=True)
            return next((failure for kind, failure in _PLAIN if isinstance(error, kind)), internal)
