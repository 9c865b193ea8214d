"""Watch jobs and cancel them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import Caller
from app.jobs.forecast import JobRow, eta_seconds
from app.jobs.forecaster import Forecaster
from app.jobs.schemas import JobRead, job_read
from app.paging import PageRequest
from app.parts import Parts
from app.preferences import wait_seconds
from app.unit_of_work import UnitOfWork
from core.accounts import Scope
from core.errors import NotCancelable, NotFound
from core.lifecycle import FINAL, JobKind
from core.promises import promise_end
from core.statements import cancel_job
from core.tables import ErasureReceipt, Generation, Job

WRITE_SCOPE = {
    JobKind.PERSONALIZE: Scope.SUBJECTS_WRITE,
    JobKind.GENERATE: Scope.GENERATIONS_WRITE,
    JobKind.EXPORT: Scope.READ,
    JobKind.ERASE: Scope.SUBJECTS_WRITE,
}


async def load_job(session: AsyncSession, caller: Caller, job_id: UUID) -> Job:
    """The caller's job, as it is now."""
    mine = select(Job).where(Job.id == job_id, caller.owns(Job)).execution_options(populate_existing=True)
    job = await session.scalar(mine)
    if job is None:
        raise NotFound
    return job


async def describe(session: AsyncSession, forecaster: Forecaster, job: Job) -> JobRead:
    """The job with its place in the queue, its ETA and what it made."""
    generations = await _generations_of(session, [job])
    receipts = await _receipts_of(session, [job])
    forecast = await forecaster.forecast(job)
    return job_read(job, forecast, generation_id=generations.get(job.id), receipt=receipts.get(job.subject_id))


async def describe_seen(parts: Parts, job: Row[Any]) -> JobRead:
    """The same for a job that `poll` has read, most often without asking the database again."""
    receipts: Mapping[UUID | None, ErasureReceipt] = {}
    if job.kind is JobKind.ERASE:
        async with parts.read_sessions() as session:
            receipts = await _receipts_of(session, [job])
    forecast = await parts.forecaster.forecast(job)
    return job_read(job, forecast, generation_id=job.generation_id, receipt=receipts.get(job.subject_id))


async def changed(parts: Parts, job: JobRow, *, seconds: float, seen_version: int | None = None) -> bool:
    """Wait until the job differs from the version that the caller has seen: has it changed since it was read?"""
    if not seconds or job.status in FINAL or seen_version not in {None, job.event_count}:
        return False
    with parts.watcher.watch(job.id) as feed:
        return await feed.beyond(job.event_count, seconds)


async def describe_new(parts: Parts, uow: UnitOfWork, caller: Caller, job: Job, *, prefer: str | None) -> JobRead:
    """Commit, so that the work begins, and describe the new job: at once, or when its state has changed.

    What its ETA comes to is kept with it.
    """
    forecast = await parts.forecaster.forecast_new(uow.session, job)
    if forecast and (seconds := eta_seconds(job, forecast)) is not None:
        await uow.session.execute(promise_end(job.id, seconds=seconds))
    await uow.commit()
    if await changed(parts, job, seconds=wait_seconds(prefer)):
        await uow.session.refresh(job)
    return await describe(uow.session, parts.forecaster, job)


async def list_jobs(
    session: AsyncSession, forecaster: Forecaster, caller: Caller, page: PageRequest, **filters: object
) -> tuple[list[JobRead], list[UUID]]:
    """A page of jobs, newest first, and their ids with the one after."""
    asked = select(Job).where(caller.owns(Job)).filter_by(**{k: v for k, v in filters.items() if v is not None})
    if page.before is not None:
        asked = asked.where(Job.id < page.before)
    jobs = (await session.scalars(asked.order_by(Job.id.desc()).limit(page.limit + 1))).all()
    shown = jobs[: page.limit]
    generations = await _generations_of(session, shown)
    receipts = await _receipts_of(session, shown)
    await session.close()  # the forecaster asks with a connection of its own: who held one would wait for the others
    return [
        job_read(
            job,
            await forecaster.forecast(job),
            generation_id=generations.get(job.id),
            receipt=receipts.get(job.subject_id) if job.kind is JobKind.ERASE else None,
        )
        for job in shown
    ], [job.id for job in jobs]


async def _generations_of(session: AsyncSession, jobs: Sequence[Job]) -> dict[UUID, UUID]:
    drawing = [job.id for job in jobs if job.kind is JobKind.GENERATE]
    rows = (await session.scalars(select(Generation).where(Generation.job_id.in_(drawing)))).all() if drawing else []
    return {row.job_id: row.id for row in rows}


async def _receipts_of(session: AsyncSession, jobs: Sequence[JobRow]) -> dict[UUID | None, ErasureReceipt]:
    erased = [job.subject_id for job in jobs if job.kind is JobKind.ERASE]
    asked = select(ErasureReceipt).where(ErasureReceipt.subject_id.in_(erased))
    rows = (await session.scalars(asked)).all() if erased else []
    return {row.subject_id: row for row in rows}


async def cancel(uow: UnitOfWork, caller: Caller, job_id: UUID, *, keep: timedelta) -> Job:
    """End a queued job at once and a running one within a step; a job that has ended stays as it is."""
    job = await load_job(uow.session, caller, job_id)
    caller.require(WRITE_SCOPE[job.kind])
    if job.kind is JobKind.ERASE:
        raise NotCancelable
    moved = (await uow.session.scalars(cancel_job(job_id, keep=keep))).one_or_none()
    return moved or await load_job(uow.session, caller, job_id)
