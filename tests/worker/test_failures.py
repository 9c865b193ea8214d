import pytest

from core.errors import FailureCode
from core.lifecycle import JobStatus
from core.storage import ObjectMissing, StorageUnavailable
from hyperdreambooth import errors
from worker.failures import OutOfGpuMemory, PromptTooLong, classify
from worker.ledger import RanTooLong


@pytest.mark.parametrize("kind", [errors.NoFace, errors.SeveralFaces, errors.FaceTooSmall, errors.Blurred])
def test_a_photo_that_will_not_do_is_rejected_with_its_reason(kind: type[errors.FaceError]) -> None:
    error = kind("words", boxes=[(0.4, 1.6, 2, 3)])
    error.photo = 1
    failure = classify(error)
    assert (failure.status, failure.retry) == (JobStatus.REJECTED, False)
    told = {"code": kind.code, "detail": "words", "retryable": False}
    assert failure.to_json() == {**told, "boxes": [[0, 2, 2, 3]], "photo": 1}


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (OutOfGpuMemory(), FailureCode.OUT_OF_MEMORY, True),
        (StorageUnavailable(), FailureCode.STORAGE_UNAVAILABLE, True),
        (ZeroDivisionError("secret"), FailureCode.INTERNAL, True),
        (ObjectMissing("key"), FailureCode.INTERNAL, False),
        (RanTooLong(), FailureCode.TIMED_OUT, False),
        (errors.Diverged("not finite"), FailureCode.DIVERGED, False),
        (errors.WrongBaseModel("another"), FailureCode.ADAPTER_UNREADABLE, False),
    ],
)
def test_what_breaks_is_failed_or_tried_again(error: Exception, code: FailureCode, retry: bool) -> None:
    failure = classify(error)
    assert (failure.code, failure.retry, failure.status) == (code, retry, JobStatus.FAILED)
    assert "secret" not in failure.detail


def test_a_prompt_that_is_too_long_is_rejected() -> None:
    assert classify(PromptTooLong("90 tokens")).status == JobStatus.REJECTED


def test_a_size_that_the_model_does_not_draw_is_rejected() -> None:
    failure = classify(errors.UnsuitableSize("at most 128 pixels"))
    assert (failure.code, failure.status, failure.retry) == (FailureCode.UNSUITABLE_SIZE, JobStatus.REJECTED, False)
    assert failure.detail == "at most 128 pixels"


def test_only_the_buckets_absence_outlasts_the_attempts() -> None:
    assert classify(StorageUnavailable()).outlasts_attempts
    assert not classify(ZeroDivisionError()).outlasts_attempts
