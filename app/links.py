"""Where each resource lives. Links in answers are paths: they hold behind every proxy and host name."""

from uuid import UUID

from core.ids import API_KEY, DELIVERY, GENERATION, JOB, SUBJECT, UPLOAD, WEBHOOK, encode_id


def job_path(job_id: UUID) -> str:
    """A job."""
    return f"/v1/jobs/{encode_id(JOB, job_id)}"


def upload_path(upload_id: UUID) -> str:
    """An upload."""
    return f"/v1/uploads/{encode_id(UPLOAD, upload_id)}"


def token_path(token_id: UUID) -> str:
    """A phone's token."""
    return f"/v1/tokens/{encode_id(API_KEY, token_id)}"


def delivery_path(endpoint_id: UUID, delivery_id: UUID) -> str:
    """A message to a webhook endpoint."""
    return f"{webhook_endpoint_path(endpoint_id)}/deliveries/{encode_id(DELIVERY, delivery_id)}"


def subject_path(subject_id: UUID) -> str:
    """A subject."""
    return f"/v1/subjects/{encode_id(SUBJECT, subject_id)}"


def weights_path(subject_id: UUID) -> str:
    """A subject's weights."""
    return f"{subject_path(subject_id)}/weights"


def generation_path(generation_id: UUID) -> str:
    """A generation."""
    return f"/v1/generations/{encode_id(GENERATION, generation_id)}"


def webhook_endpoint_path(endpoint_id: UUID) -> str:
    """A webhook endpoint."""
    return f"/v1/webhook-endpoints/{encode_id(WEBHOOK, endpoint_id)}"
