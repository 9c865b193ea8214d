"""`/metrics`: what Prometheus asks for. Requests of this process; jobs and workers of the whole deployment."""

from collections import Counter
from datetime import timedelta

from fastapi import APIRouter, Response
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.dependencies import PartsDep, SessionDep
from app.documented import problems
from app.jobs.accuracy import accuracy_lines
from app.parts import Parts
from app.request_metrics import Labels, metric
from core.errors import Unavailable
from core.lifecycle import JobKind, JobStatus
from core.statements import live_workers
from core.tables import Job

router = APIRouter(tags=["health"])
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
WORKER_SEEN = timedelta(seconds=60)
UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)


@router.get(
    "/metrics", response_class=Response, responses=problems(Unavailable) | {200: {"content": {"text/plain": {}}}}
)
async def metrics(parts: PartsDep, session: SessionDep) -> Response:
    """For Prometheus."""
    lines = [
        *parts.metrics.lines(),
        *await _job_lines(session),
        *await accuracy_lines(session),
        *await _worker_lines(session),
        *_process_lines(parts),
    ]
    return Response("\n".join(lines) + "\n", media_type=MEDIA_TYPE)


async def _job_lines(session: AsyncSession) -> list[str]:
    """How many wait and run, and how long ago the oldest that waits was asked for."""
    counted = (
        select(Job.kind, Job.status, func.count()).where(Job.status.in_(UNFINISHED)).group_by(Job.kind, Job.status)
    )
    jobs: dict[Labels, float] = {(("kind", kind), ("status", status)): 0 for kind in JobKind for status in UNFINISHED}
    for kind, status, count in await session.execute(counted):
        jobs[("kind", kind), ("status", status)] = count
    oldest = func.coalesce(func.extract("epoch", func.now() - func.min(Job.created_at)), 0)
    seconds = await session.scalar(select(oldest).where(Job.status == JobStatus.QUEUED))
    return [
        *metric("hdb_jobs", "gauge", jobs),
        "# TYPE hdb_oldest_queued_seconds gauge",
        f"hdb_oldest_queued_seconds {seconds}",
    ]


def _process_lines(parts: Parts) -> list[str]:
    """What this process holds open."""
    return [
        "# TYPE hdb_waiting_requests gauge",
        f"hdb_waiting_requests {parts.watcher.waiters()}",
    ]


async def _worker_lines(session: AsyncSession) -> list[str]:
    workers: Counter[Labels] = Counter()
    for worker in await session.scalars(live_workers(within=WORKER_SEEN)):
        workers[("role", worker.role), ("base_model", worker.base_model or ""), ("state", worker.state)] += 1
    return list(metric("hdb_workers", "gauge", workers))
