"""What callers say about a subject, and what they are told."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.jobs.schemas import JobRead
from app.links import job_path, subject_path, weights_path
from app.paging import Page
from app.texts import ShortText
from core.ids import SUBJECT, encode_id
from core.lifecycle import FINAL, JobStatus
from core.schemas import MAX_PHOTOS, Method
from core.tables import Adapter, Job, Subject

CONSENT_TEXT = "2026-11"
MAX_DEADLINE_SECONDS = 86_400


class Consent(StrEnum):
    """Whose face it is: the caller's own user's, or somebody's who agreed."""

    SELF = "self"
    GRANTED = "granted"


class SubjectFields(BaseModel):
    """The fields beside the photos."""

    model_config = ConfigDict(extra="forbid")

    consent: Consent = Field(description="`self`: the person sends their own face; `granted`: the person agreed.")
    consent_text: ShortText = Field(CONSENT_TEXT, description="The version of the text that they agreed to.")
    name: ShortText | None = None
    base_model: ShortText | None = Field(None, description="One of `GET /v1/models`; the deployment's own if absent.")
    method: Method = Method.AUTO
    keep_photo: bool = Field(False, description="Otherwise the photos are deleted when the job ends.")
    deadline_seconds: int | None = Field(
        None, ge=1, le=MAX_DEADLINE_SECONDS, description="A job that has not begun by then expires."
    )
    client_reference: ShortText | None = Field(None, description="Yours; given back with the subject and its job.")


class UploadedSubject(SubjectFields):
    """The same, for photos that were uploaded before."""

    upload_ids: list[str] = Field(
        min_length=1,
        max_length=MAX_PHOTOS,
        description="Of `POST /v1/uploads`, all of one person.",
        json_schema_extra={"uniqueItems": True},
    )

    @field_validator("upload_ids")
    @classmethod
    def each_once(cls, given: list[str]) -> list[str]:
        """An upload is one photo."""
        if len(set(given)) < len(given):
            raise ValueError("Each upload is one photo: name it once.")
        return given


class SubjectChange(BaseModel):
    """What can be changed later."""

    model_config = ConfigDict(extra="forbid")

    name: ShortText | None = Field(description="null takes the name away.")


class SubjectStatus(StrEnum):
    """`ready` has weights; `processing` will see; `failed` has none and its job has ended."""

    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


class WeightsRead(BaseModel):
    """The personal weights."""

    size: int = Field(description="Bytes.")
    sha256: str
    created_at: datetime
    link: str


class SubjectRead(BaseModel):
    """A subject."""

    id: str = Field(examples=["sub_01m8398gmne0a84bdbs8wn5qd6"])
    name: str | None
    status: SubjectStatus
    base_model: str
    client_reference: str | None
    photo_kept: bool = Field(description="Whether the photos are in the bucket now.")
    weights: WeightsRead | None
    created_at: datetime
    links: dict[str, str]


class SubjectAndJob(BaseModel):
    """A subject and the job that personalises it."""

    subject: SubjectRead
    job: JobRead


class SubjectList(Page):
    """A page of subjects."""

    subjects: list[SubjectRead]


def subject_read(subject: Subject, adapter: Adapter | None, job: Job | None) -> SubjectRead:
    """The subject as callers see it, with its weights and its latest job."""
    links = {"self": subject_path(subject.id)}
    if job is not None:
        links["job"] = job_path(job.id)
    return SubjectRead(
        id=encode_id(SUBJECT, subject.id),
        name=subject.name,
        status=_status(adapter, job),
        base_model=subject.base_model,
        client_reference=subject.client_reference,
        photo_kept=bool(subject.photo_keys),
        weights=_weights(subject, adapter) if adapter else None,
        created_at=subject.created_at,
        links=links,
    )


def _status(adapter: Adapter | None, job: Job | None) -> SubjectStatus:
    if adapter is not None:
        return SubjectStatus.READY
    ended = job is None or (job.status in FINAL and job.status is not JobStatus.SUCCEEDED)
    return SubjectStatus.FAILED if ended else SubjectStatus.PROCESSING


def _weights(subject: Subject, adapter: Adapter) -> WeightsRead:
    return WeightsRead(
        size=adapter.size, sha256=adapter.sha256, created_at=adapter.created_at, link=weights_path(subject.id)
    )


def request_body() -> dict[str, Any]:
    """The request body of `POST /v1/subjects` for the OpenAPI document: the fields and the photos."""
    photo = {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "minItems": 1,
        "maxItems": MAX_PHOTOS,
        "description": "One file or several, of one person: JPEG, PNG, WebP, HEIC or AVIF; at most 20 MB each.",
    }
    schema = SubjectFields.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs")
    schema["properties"] = {"photo": photo, **schema["properties"]}
    schema["required"] = ["photo", *schema["required"]]
    schema["title"] = "NewSubject"
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": schema, "example": {"consent": "self", "name": "Ada"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/UploadedSubject"}},
        },
    }
