"""The hot path: one statement tells who asks and what they get to see."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, bindparam, func, select

from app.auth import CALLER_COLUMNS, KEY_WORKS, Caller, caller_of, key_sha256
from app.parts import Parts
from core.database import read_one
from core.tables import ApiKey, Generation, Job

# What a caller sees of a job. Of the parameters, which hold prompts, an export's format is all.
JOB_COLUMNS = (
    Job.id,
    Job.kind,
    Job.base_model,
    Job.status,
    Job.phase,
    Job.step,
    Job.total_steps,
    Job.attempt,
    Job.cancel_requested,
    Job.event_count,
    Job.error,
    Job.timings,
    Job.created_at,
    Job.started_at,
    Job.finished_at,
    Job.expires_at,
    Job.subject_id,
    Job.client_reference,
    func.jsonb_build_object("format", Job.params["format"]).label("params"),
)


def poll_statement() -> Select[Any]:
    """Takes `key_sha256` and `job_id`. No row: no such key. A row without a job: the key has no such job."""
    visible = and_(
        Job.id == bindparam("job_id"),
        Job.account_id == ApiKey.account_id,
        ~ApiKey.one_subject | (Job.subject_id == ApiKey.subject_id),
    )
    return (
        select(*CALLER_COLUMNS, *JOB_COLUMNS, Generation.id.label("generation_id"))
        .select_from(ApiKey)
        .outerjoin(Job, visible)
        .outerjoin(Generation, Generation.job_id == Job.id)
        .where(KEY_WORKS)
    )


POLL = poll_statement()


async def poll(parts: Parts, key: str, job_id: UUID) -> tuple[Caller, Row[Any] | None]:
    """The caller, and the job as it is now if they get to see it."""
    digest = key_sha256(key, parts.settings.environment)
    row = await read_one(parts.reads, POLL, {"key_sha256": digest, "job_id": job_id})
    caller = caller_of(row)
    return caller, row if row is not None and row.id is not None else None
