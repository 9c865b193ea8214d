"""Which base models the workers serve."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.forecast import coarse
from app.models.schemas import ModelRead, ModelState
from app.parts import Parts
from core.lifecycle import JobKind, WorkerRole
from core.statements import live_workers
from core.tables import WorkerProcess

WORKER_SEEN = timedelta(seconds=60)
STATES = {"ready": ModelState.READY, "busy": ModelState.READY, "loading": ModelState.LOADING}


async def list_models(session: AsyncSession, parts: Parts) -> list[ModelRead]:
    """The deployment's own model first."""
    workers = [
        worker
        for worker in (await session.scalars(live_workers(within=WORKER_SEEN))).all()
        if worker.role == WorkerRole.GPU and worker.base_model
    ]
    default = parts.settings.model_name
    others = sorted({worker.base_model for worker in workers if worker.base_model} - {default})
    return [await _model(session, parts, name, workers) for name in (default, *others)]


async def _model(session: AsyncSession, parts: Parts, name: str, workers: Sequence[WorkerProcess]) -> ModelRead:
    serving = [worker for worker in workers if worker.base_model == name]
    states = {STATES.get(worker.state, ModelState.ABSENT) for worker in serving}
    loaded = [worker.has_hypernetwork for worker in serving if worker.base_model_hash]
    return ModelRead(
        name=name,
        default=name == parts.settings.model_name,
        state=next((state for state in ModelState if state in states), ModelState.ABSENT),
        workers=len(serving),
        has_hypernetwork=any(loaded) if loaded else None,
        personalize_seconds=await _seconds(session, parts, JobKind.PERSONALIZE, name),
        generate_seconds=await _seconds(session, parts, JobKind.GENERATE, name),
    )


async def _seconds(session: AsyncSession, parts: Parts, kind: JobKind, name: str) -> int | None:
    whole = (await parts.forecaster.pace(session, kind, name)).whole_job
    return None if whole is None else coarse(whole)
