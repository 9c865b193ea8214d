"""What the API is measured against: FastAPI, one primary-key SELECT through the same driver, and the same bytes.

An engine as SQLAlchemy makes it, a connection from its pool, a statement of its core: nothing is slower than it must
be, nothing is tuned.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from fastapi import FastAPI, Response
from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import create_async_engine

from core.settings import Settings
from core.tables import Job

JOB, BODY = "BENCHMARK_JOB", "BENCHMARK_BODY"  # environment variables


def create_bare_app() -> FastAPI:
    """`uvicorn --factory benchmarks.api.bare:create_bare_app`."""
    engine = create_async_engine(Settings().database_url.get_secret_value())
    job_id, body = UUID(os.environ[JOB]), Path(os.environ[BODY]).read_bytes()
    one_job = select(Job.__table__).where(Job.id == bindparam("job_id"))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    bare = FastAPI(lifespan=lifespan)

    async def read() -> None:
        async with engine.connect() as connection:
            (await connection.execute(one_job, {"job_id": job_id})).one()

    @bare.get("/bare")
    async def get_bare() -> Response:
        await read()
        return Response(body, media_type="application/json")

    @bare.get("/empty")
    async def get_empty() -> Response:
        await read()
        return Response(status_code=304)

    return bare
