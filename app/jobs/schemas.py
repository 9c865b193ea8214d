"""The job object: it answers every question in one read."""

from datetime import datetime
from typing import Any, assert_never
from uuid import UUID

from pydantic import BaseModel, Field

from app.errors import FieldError, problem_type
from app.jobs.forecast import Forecast, JobRow, coarse, eta_seconds, fraction
from app.links import generation_path, job_path, subject_path, weights_path
from core.errors import FAILURE_TITLES, FailureCode
from core.ids import GENERATION, JOB, RECEIPT, SUBJECT, encode_id
from core.lifecycle import FINAL, JobKind, JobStatus, Phase
from core.tables import ErasureReceipt


class QueuePlace(BaseModel):
    """Where a waiting job stands."""

    position: int = Field(description="1 is next.")
    ahead_seconds: int | None = Field(description="Until it starts, by the pace of recent jobs; null if unmeasured.")


class Progress(BaseModel):
    """How far it is."""

    step: int = Field(description="Within the phase.")
    total_steps: int
    fraction: float = Field(ge=0, le=1, description="Of the whole job.")


class JobProblem(BaseModel):
    """Why a job has no result; `code` is stable, `type` is a page about it."""

    type: str
    title: str
    detail: str
    code: FailureCode
    retryable: bool = Field(description="A new job with the same input may succeed.")
    errors: list[FieldError] = Field(description="Which photo of several it is about: `#/photo/0` is the first.")
    boxes: list[list[int]] = Field(description="The faces that were found: x, y, width, height in the photo's pixels.")


class Receipt(BaseModel):
    """Proof of an erasure."""

    id: str
    subject_id: str
    requested_at: datetime
    erased_at: datetime | None
    objects: int = Field(description="How many objects were removed from the bucket.")


class JobResult(BaseModel):
    """Paths to what the job made."""

    subject: str | None = None
    weights: str | None = None
    generation: str | None = None
    receipt: Receipt | None = None


class JobRead(BaseModel):
    """A job."""

    id: str = Field(examples=["job_01m8398gmne0a84bdbs8wn5qd6"])
    kind: JobKind
    status: JobStatus
    phase: Phase | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    queue: QueuePlace | None = Field(description="Of a queued job.")
    progress: Progress
    eta_seconds: int | None = Field(description="Until it is done; coarse; null before jobs have been measured.")
    attempt: int
    cancel_requested: bool
    timings: dict[Phase, float] = Field(description="Seconds of each phase that ended.")
    result: JobResult | None
    error: JobProblem | None
    version: int = Field(description="Rises with every change of status or phase.")
    subject_id: str | None
    generation_id: str | None
    client_reference: str | None
    links: dict[str, str]


def job_read(
    job: JobRow, forecast: Forecast, *, generation_id: UUID | None = None, receipt: ErasureReceipt | None = None
) -> JobRead:
    """The job as callers see it."""
    return JobRead(
        id=encode_id(JOB, job.id),
        kind=job.kind,
        status=job.status,
        phase=job.phase,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        expires_at=job.expires_at,
        queue=_place(forecast),
        progress=Progress(step=job.step, total_steps=job.total_steps, fraction=fraction(job, forecast.pace)),
        eta_seconds=eta_seconds(job, forecast),
        attempt=job.attempt,
        cancel_requested=job.cancel_requested,
        timings={Phase(name): seconds for name, seconds in job.timings.items()},
        result=_result(job, generation_id, receipt) if job.status is JobStatus.SUCCEEDED else None,
        error=_problem(job.error) if job.error and job.status in FINAL else None,
        version=job.event_count,
        subject_id=encode_id(SUBJECT, job.subject_id) if job.subject_id else None,
        generation_id=encode_id(GENERATION, generation_id) if generation_id else None,
        client_reference=job.client_reference,
        links=_links(job, generation_id),
    )


def _place(forecast: Forecast) -> QueuePlace | None:
    if forecast.ahead is None:
        return None
    waiting = coarse(forecast.waiting) if forecast.waiting else forecast.waiting
    return QueuePlace(position=forecast.ahead + 1, ahead_seconds=None if waiting is None else int(waiting))


def _result(job: JobRow, generation_id: UUID | None, receipt: ErasureReceipt | None) -> JobResult:
    assert job.subject_id is not None
    match job.kind:
        case JobKind.PERSONALIZE:
            return JobResult(subject=subject_path(job.subject_id), weights=weights_path(job.subject_id))
        case JobKind.EXPORT:
            # The parameters are gone once the subject is erased.
            asked = job.params.get("format")
            return JobResult(weights=f"{weights_path(job.subject_id)}?format={asked}" if asked else None)
        case JobKind.GENERATE:
            return JobResult(generation=generation_path(generation_id) if generation_id else None)
        case JobKind.ERASE:
            return JobResult(receipt=receipt_read(receipt) if receipt else None)
        case _:
            assert_never(job.kind)


def receipt_read(receipt: ErasureReceipt) -> Receipt:
    """The receipt as callers see it."""
    return Receipt(
        id=encode_id(RECEIPT, receipt.id),
        subject_id=encode_id(SUBJECT, receipt.subject_id),
        requested_at=receipt.requested_at,
        erased_at=receipt.erased_at,
        objects=receipt.objects,
    )


def _problem(error: dict[str, Any]) -> JobProblem:
    """What the worker noted, with title and page."""
    code = FailureCode(error["code"])
    detail = error.get("detail", FAILURE_TITLES[code])
    photo = error.get("photo")
    return JobProblem(
        type=problem_type(code),
        title=FAILURE_TITLES[code],
        detail=detail,
        code=code,
        retryable=error.get("retryable", False),
        errors=[] if photo is None else [FieldError(pointer=f"#/photo/{photo}", detail=detail)],
        boxes=error.get("boxes", []),
    )


def _links(job: JobRow, generation_id: UUID | None) -> dict[str, str]:
    links = {"self": job_path(job.id), "events": f"{job_path(job.id)}/events"}
    if job.status not in FINAL:
        links["cancel"] = f"{links['self']}/cancel"
    if job.subject_id is not None:
        links["subject"] = subject_path(job.subject_id)
    if generation_id is not None:
        links["generation"] = generation_path(generation_id)
    return links
