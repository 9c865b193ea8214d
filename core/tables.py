"""The rows that the API and the worker agree on. The job row is the truth; its message is only a bell.

Two triggers, made by the migrations, stand behind `jobs`: a final status never changes again, and each change of status
or phase raises `event_count` and appends the matching row of `job_events` under the job's row lock: no code path can
forget to.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Enum, ForeignKey, Index, MetaData, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import String

from core.ids import new_id
from core.lifecycle import JobKind, JobStatus, Phase
from core.schemas import PictureFormat

NOW = func.now()
NO_JSON = text("'{}'::jsonb")


def closed_set(members: type[StrEnum]) -> Enum:
    """A text column that holds the values of a StrEnum and gives its members back."""
    return Enum(members, native_enum=False, length=16, values_callable=lambda enum: [member.value for member in enum])


class Table(DeclarativeBase):
    """Base of every table class."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own protocol
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(String),
        JobStatus: closed_set(JobStatus),
        JobKind: closed_set(JobKind),
        Phase: closed_set(Phase),
        PictureFormat: closed_set(PictureFormat),
    }


class Account(Table):
    """Who owns subjects and keys."""

    __tablename__ = "accounts"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class ApiKey(Table):
    """A key's hash and what it may do; the key itself is shown once and kept nowhere.

    A phone's token is a key that expires and that makes and watches one subject: `subject_id`, once there is one.
    """

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), index=True)
    sha256: Mapped[str] = mapped_column(unique=True)
    hint: Mapped[str]
    scopes: Mapped[list[str]]
    one_subject: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    subject_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Upload(Table):
    """A place to put a photo, handed out before the subject exists."""

    __tablename__ = "uploads"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class Subject(Table):
    """A person to be personalised. `adapter_id` is the pointer that a successful job flips."""

    __tablename__ = "subjects"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str | None]
    base_model: Mapped[str]
    client_reference: Mapped[str | None]
    keep_photo: Mapped[bool]
    # Where its photos lie; empty once they are deleted.
    photo_keys: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    adapter_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    erased_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_subjects_listing", "account_id", "id"),)


class Consent(Table):
    """Whose face, which text they agreed to, and when. Outlives the subject, without naming anyone."""

    __tablename__ = "consents"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    subject_id: Mapped[UUID] = mapped_column(index=True)
    whose: Mapped[str]
    text_version: Mapped[str]
    agreed_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Job(Table):
    """What a caller asked for: one row, moved by guarded UPDATEs alone (`core/statements.py`)."""

    __tablename__ = "jobs"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    subject_id: Mapped[UUID | None] = mapped_column(ForeignKey("subjects.id"), index=True)
    kind: Mapped[JobKind]
    base_model: Mapped[str]
    base_model_hash: Mapped[str | None]
    params: Mapped[dict[str, Any]] = mapped_column(server_default=NO_JSON)
    seed: Mapped[int] = mapped_column(BigInteger)
    traceparent: Mapped[str | None]
    client_reference: Mapped[str | None]

    status: Mapped[JobStatus] = mapped_column(default=JobStatus.QUEUED, server_default="queued")
    phase: Mapped[Phase | None]
    step: Mapped[int] = mapped_column(default=0, server_default="0")
    total_steps: Mapped[int] = mapped_column(default=0, server_default="0")
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    strikes: Mapped[int] = mapped_column(default=0, server_default="0")
    worker: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    event_count: Mapped[int] = mapped_column(default=0, server_default="0")
    error: Mapped[dict[str, Any] | None]
    timings: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=NO_JSON)

    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    queued_at: Mapped[datetime] = mapped_column(server_default=NOW)
    rung_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    phase_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    # The end that the first ETA and the one at the first start came to: `/metrics` compares them with the true one.
    promised_at: Mapped[datetime | None]
    start_promised_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_jobs_queue", "kind", "base_model", "created_at", postgresql_where=text("status = 'queued'")),
        Index("ix_jobs_leases", "lease_expires_at", postgresql_where=text("status = 'running'")),
        Index("ix_jobs_listing", "account_id", "id"),
        Index("ix_jobs_due", "expires_at"),
    )


class JobEvent(Table):
    """One change of state or phase, numbered within its job. Written by a trigger."""

    __tablename__ = "job_events"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=NOW)
    status: Mapped[JobStatus]
    phase: Mapped[Phase | None]
    attempt: Mapped[int]


class Adapter(Table):
    """A subject's weights in the bucket: which attempt made them, and their hash."""

    __tablename__ = "adapters"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    subject_id: Mapped[UUID] = mapped_column(ForeignKey("subjects.id"), index=True)
    # No foreign key: weights outlive the job that made them.
    job_id: Mapped[UUID]
    attempt: Mapped[int]
    object_key: Mapped[str] = mapped_column(unique=True)
    sha256: Mapped[str]
    size: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)

    __table_args__ = (UniqueConstraint("job_id", "attempt"),)


class Export(Table):
    """An adapter folded into another tool's format: made on request, kept for a day."""

    __tablename__ = "exports"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    subject_id: Mapped[UUID] = mapped_column(ForeignKey("subjects.id"))
    adapter_id: Mapped[UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"))
    format: Mapped[str]
    object_key: Mapped[str] = mapped_column(unique=True)
    sha256: Mapped[str]
    size: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = (Index("ix_exports_lookup", "adapter_id", "format"),)


class Generation(Table):
    """A request for pictures of one subject."""

    __tablename__ = "generations"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    subject_id: Mapped[UUID] = mapped_column(ForeignKey("subjects.id"), index=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime]
    erased_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_generations_listing", "account_id", "id"),
        Index("ix_generations_due", "expires_at", postgresql_where=text("erased_at IS NULL")),
    )


class GeneratedImage(Table):
    """One picture of a generation, with the seed that draws it again. A blocked one is not in the bucket."""

    __tablename__ = "generated_images"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    generation_id: Mapped[UUID] = mapped_column(ForeignKey("generations.id", ondelete="CASCADE"))
    position: Mapped[int]
    object_key: Mapped[str | None]
    prompt: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int]
    height: Mapped[int]
    size: Mapped[int]
    format: Mapped[PictureFormat] = mapped_column(default=PictureFormat.PNG, server_default="png")
    verdict: Mapped[str]

    __table_args__ = (UniqueConstraint("generation_id", "position"),)


class WebhookEndpoint(Table):
    """Where an account wants to be told. Secrets are kept, since each delivery is signed with them."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), index=True)
    url: Mapped[str]
    events: Mapped[list[str]]
    secret: Mapped[str]
    previous_secret: Mapped[str | None]
    previous_secret_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    disabled_at: Mapped[datetime | None]


class WebhookDelivery(Table):
    """One message to one endpoint: tries, answer, and when the next try is due. Written by a trigger on `jobs`."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    endpoint_id: Mapped[UUID] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), index=True)
    event: Mapped[str]
    job_id: Mapped[UUID | None] = mapped_column(index=True)
    subject_id: Mapped[UUID | None]
    tries: Mapped[int] = mapped_column(default=0, server_default="0")
    next_attempt_at: Mapped[datetime | None] = mapped_column(index=True)
    delivered_at: Mapped[datetime | None]
    response_status: Mapped[int | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class IdempotencyRecord(Table):
    """The first answer to an Idempotency-Key, stored in the transaction of what it made."""

    __tablename__ = "idempotency_records"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    status: Mapped[int]
    location: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class ErasureReceipt(Table):
    """Proof that a subject's rows and objects are gone. Names no one."""

    __tablename__ = "erasure_receipts"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    subject_id: Mapped[UUID] = mapped_column(index=True)
    requested_at: Mapped[datetime] = mapped_column(server_default=NOW)
    erased_at: Mapped[datetime | None]
    verified_at: Mapped[datetime | None]
    objects: Mapped[int] = mapped_column(default=0, server_default="0")


class AuditEntry(Table):
    """Who did which administrative thing, and when."""

    __tablename__ = "audit_log"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    at: Mapped[datetime] = mapped_column(server_default=NOW)
    actor: Mapped[str]
    action: Mapped[str]
    account_id: Mapped[UUID | None]
    details: Mapped[dict[str, Any]] = mapped_column(server_default=NO_JSON)


class WorkerProcess(Table):
    """A process that says it lives: what it serves, and in which state it is."""

    __tablename__ = "worker_processes"

    name: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    base_model: Mapped[str | None]
    base_model_hash: Mapped[str | None]
    has_hypernetwork: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    batch_size: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    state: Mapped[str]
    seen_at: Mapped[datetime] = mapped_column(server_default=NOW)
