"""Where each object lies in the bucket. All of a subject lies under one prefix: to erase it is to erase that prefix."""

from uuid import UUID

from core.lifecycle import JobKind

SUBJECTS, UPLOADS = "subjects/", "uploads/"


def subject_prefix(subject_id: UUID) -> str:
    """Everything of a subject."""
    return f"{SUBJECTS}{subject_id}/"


def photo_key(subject_id: UUID, position: int = 0) -> str:
    """A re-encoded photo, without metadata; its content type says PNG or JPEG."""
    return f"{subject_prefix(subject_id)}photos/{position}"


def attempts_prefix(kind: JobKind, subject_id: UUID, job_id: UUID) -> str:
    """The files of all attempts at a job that makes one."""
    place = {JobKind.PERSONALIZE: "adapters", JobKind.EXPORT: "exports"}[kind]
    return f"{subject_prefix(subject_id)}{place}/{job_id}/"


def adapter_key(subject_id: UUID, job_id: UUID, attempt: int) -> str:
    """An attempt's weights: a late attempt can't overwrite a good one."""
    return f"{attempts_prefix(JobKind.PERSONALIZE, subject_id, job_id)}{attempt}.safetensors"


def export_key(subject_id: UUID, job_id: UUID, attempt: int) -> str:
    """The weights in another tool's format."""
    return f"{attempts_prefix(JobKind.EXPORT, subject_id, job_id)}{attempt}.safetensors"


def generation_prefix(subject_id: UUID, generation_id: UUID) -> str:
    """Everything of a generation."""
    return f"{subject_prefix(subject_id)}generations/{generation_id}/"


def picture_key(subject_id: UUID, generation_id: UUID, attempt: int, position: int, suffix: str = ".png") -> str:
    """One picture of one attempt."""
    return f"{generation_prefix(subject_id, generation_id)}{attempt}/{position:03d}{suffix}"


def upload_key(upload_id: UUID) -> str:
    """The bytes as a phone sent them, until a subject takes them."""
    return f"{UPLOADS}{upload_id}"
