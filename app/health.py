"""`/livez`: the process runs. `/readyz`: red without database or bucket; degraded without broker or due workers."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Literal

from anyio import to_thread
from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from app import admission
from app.dependencies import PartsDep
from app.parts import Parts
from core.lifecycle import WorkerRole
from core.queue import broker_answers
from core.statements import live_workers
from core.tables import WorkerProcess

router = APIRouter(tags=["health"])
WORKER_SEEN = timedelta(seconds=60)
ANSWER_SECONDS = 3
WORKING_STATES = frozenset({"ready", "busy"})


class Check(StrEnum):
    """How a part is."""

    OK = "ok"
    MISSING = "missing"


class Readiness(StrEnum):
    """`ready`; `degraded`: requests are taken, jobs may wait; `unavailable`: requests fail."""

    READY = "ready"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"


class Health(BaseModel):
    """Every part by name."""

    status: Readiness
    checks: dict[str, Check]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who lives, and the base models that jobs are taken for (`app/admission.py`)."""

    alive: list[WorkerProcess]
    base_models: set[str]

    def serve_all(self) -> bool:
        """Whether every base model has somebody who works for it."""
        return self.base_models <= {worker.base_model for worker in self.alive if worker.state in WORKING_STATES}

    def keep_house(self) -> bool:
        """Whether somebody sweeps."""
        return any(worker.role == WorkerRole.HOUSEKEEPING for worker in self.alive)


class Life(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


@router.get("/livez")
async def livez() -> Life:
    """The process answers."""
    return Life()


@router.get("/readyz", responses={503: {"model": Health, "description": "Requests would fail"}})
async def readyz(parts: PartsDep, response: Response) -> Health:
    """Whether requests and jobs get through."""
    workers, bucket, broker = await asyncio.gather(_workers(parts), _bucket(parts), to_thread.run_sync(broker_answers))
    vital = {"database": workers is not None, "bucket": bucket}
    checks = vital | {
        "broker": broker,
        "worker": workers is not None and workers.serve_all(),
        "housekeeping": workers is not None and workers.keep_house(),
    }
    status = Readiness.READY if all(checks.values()) else Readiness.DEGRADED
    if not all(vital.values()):
        status = Readiness.UNAVAILABLE
        response.status_code = 503
    return Health(status=status, checks={name: Check.OK if fine else Check.MISSING for name, fine in checks.items()})


async def _workers(parts: Parts) -> Workers | None:
    """The processes heard of lately; None without the database."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS), parts.sessions() as session:
            alive = list((await session.scalars(live_workers(within=WORKER_SEEN))).all())
            counted_on = (await session.scalars(live_workers(within=admission.WORKER_SEEN))).all()
    except (SQLAlchemyError, TimeoutError, OSError):
        return None
    served = {worker.base_model for worker in counted_on if worker.base_model}
    return Workers(alive=alive, base_models=served | {parts.settings.model_name})


async def _bucket(parts: Parts) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await to_thread.run_sync(parts.store.is_ready, abandon_on_cancel=True)
    except TimeoutError:
        return False
