"""Is there anybody for this job, and room in the queue? Asked before any work is done for it."""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import Caller
from app.limits import check_jobs_in_flight
from core.errors import NoHypernetwork, QueueFull, UnknownBaseModel
from core.lifecycle import JobStatus, WorkerRole
from core.schemas import Method
from core.settings import Settings
from core.statements import live_workers
from core.tables import Job, WorkerProcess

WORKER_SEEN = timedelta(minutes=10)
FULL_RETRY_SECONDS = 10


async def admit(
    session: AsyncSession, settings: Settings, caller: Caller, base_model: str, *, method: Method = Method.AUTO
) -> None:
    """Refuse what this deployment can't do, or not now."""
    workers = (await session.scalars(live_workers(within=WORKER_SEEN))).all()
    serving = [worker for worker in workers if worker.role == WorkerRole.GPU and worker.base_model == base_model]
    if base_model != settings.model_name and not serving:
        raise UnknownBaseModel(f"`{base_model}` is not served here; see GET /v1/models.")
    if method is Method.HYPERDREAMBOOTH and serving and not _has_hypernetwork(serving):
        raise NoHypernetwork
    await check_jobs_in_flight(session, settings, caller.account_id)
    waiting = select(Job.id).where(Job.status == JobStatus.QUEUED).limit(settings.max_queued_jobs).subquery()
    if await session.scalar(select(func.count()).select_from(waiting)) == settings.max_queued_jobs:
        raise QueueFull(retry_after=FULL_RETRY_SECONDS)


def _has_hypernetwork(workers: list[WorkerProcess]) -> bool:
    """A worker that loads still may not have said so yet."""
    return any(worker.has_hypernetwork or worker.base_model_hash is None for worker in workers)
