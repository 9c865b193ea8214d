"""What the API is measured against: FastAPI, one primary-key SELECT through the same driver, and the same bytes."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from fastapi import FastAPI, Response
from sqlalchemy import select

from core.database import make_async_engine, make_async_sessions
from core.settings import Settings
from core.tables import Job

JOB, BODY = "BENCHMARK_JOB", "BENCHMARK_BODY"  # environment variables


def create_bare_app() -> FastAPI:
    """`uvicorn --factory benchmarks.api.bare:create_bare_app`."""
    engine = make_async_engine(Settings())
    sessions = make_async_sessions(engine)
    job_id, body = UUID(os.environ[JOB]), Path(os.environ[BODY]).read_bytes()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    bare = FastAPI(lifespan=lifespan)

    @bare.get("/bare")
    async def get_bare() -> Response:
        async with sessions() as session:
            await session.execute(select(Job).where(Job.id == job_id))
        return Response(body, media_type="application/json")

    @bare.get("/empty")
    async def get_empty() -> Response:
        async with sessions() as session:
            await session.execute(select(Job).where(Job.id == job_id))
        return Response(status_code=304)

    return bare
