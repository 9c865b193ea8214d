"""Find a subject's weights, or have them folded into another format."""

from dataclasses import dataclass
from uuid import UUID

from anyio import to_thread
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import Caller
from app.limits import check_jobs_in_flight
from app.parts import Parts
from app.subjects.service import load_subject
from app.unit_of_work import UnitOfWork
from app.weights.schemas import WeightsFormat
from core.errors import SubjectNotReady
from core.lifecycle import JobKind, JobStatus
from core.schemas import ExportParams
from core.tables import Adapter, Export, Job, Subject

LOCK_SPACE = 0x48444245


@dataclass(frozen=True)
class StoredFile:
    """Weights in the bucket."""

    object_key: str
    sha256: str
    size: int


async def find_weights(
    parts: Parts, uow: UnitOfWork, caller: Caller, subject_id: UUID, form: WeightsFormat, *, traceparent: str
) -> StoredFile | Job:
    """The file, or the job that is making it."""
    subject = await load_subject(uow.session, caller, subject_id)
    if subject.adapter_id is None:
        raise SubjectNotReady
    if form is WeightsFormat.LIDB:
        adapter = await uow.session.get_one(Adapter, subject.adapter_id)
        return StoredFile(adapter.object_key, adapter.sha256, adapter.size)
    if export := await _export(uow.session, subject.adapter_id, form):
        return StoredFile(export.object_key, export.sha256, export.size)
    params = ExportParams(adapter_id=subject.adapter_id, format=form)
    # Two requests at once get one job.
    await uow.session.execute(
        select(func.pg_advisory_xact_lock(LOCK_SPACE, func.hashtext(f"{params.adapter_id}/{form}")))
    )
    if job := await _folding(uow.session, subject, params):
        return job
    await check_jobs_in_flight(uow.session, parts.settings, caller.account_id)
    return await _add_job(uow, subject, params, traceparent)


async def _export(session: AsyncSession, adapter_id: UUID, form: WeightsFormat) -> Export | None:
    there = select(Export).where(
        Export.adapter_id == adapter_id, Export.format == form.value, Export.expires_at > func.now()
    )
    return (await session.scalars(there.order_by(Export.expires_at.desc()).limit(1))).one_or_none()


async def _folding(session: AsyncSession, subject: Subject, params: ExportParams) -> Job | None:
    unfinished = Job.status.in_([JobStatus.QUEUED, JobStatus.RUNNING])
    same = Job.params == params.model_dump(mode="json")
    return await session.scalar(
        select(Job).where(Job.subject_id == subject.id, Job.kind == JobKind.EXPORT, unfinished, same).limit(1)
    )


async def _add_job(uow: UnitOfWork, subject: Subject, params: ExportParams, traceparent: str) -> Job:
    job = Job(
        account_id=subject.account_id,
        subject_id=subject.id,
        kind=JobKind.EXPORT,
        base_model=subject.base_model,
        params=params.model_dump(mode="json"),
        seed=0,
        traceparent=traceparent,
    )
    return await uow.add_job(job)


async def read_weights(parts: Parts, file: StoredFile) -> bytes:
    """The file, byte for byte as the worker stored it."""
    return await to_thread.run_sync(parts.store.get, file.object_key)
