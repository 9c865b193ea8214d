import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from app.main import create_app
from core.lifecycle import WorkerRole
from core.queue import celery_app, configure_queue
from core.settings import Settings
from core.statements import report_alive
from core.tables import WorkerProcess
from tests.app.conftest import TLS, serving, submit
from tests.factories import photo_bytes


def closed_port() -> int:
    """Where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@asynccontextmanager
async def another_service(settings: Settings, **changed: str) -> AsyncIterator[httpx.AsyncClient]:
    """The application with some of its servers elsewhere."""
    service = create_app(Settings.model_validate(settings.model_dump() | changed))
    celery_app.amqp._producer_pool = None  # it would keep the broker that it met first
    try:
        async with serving(service) as address, httpx.AsyncClient(base_url=address, timeout=60, verify=TLS) as client:
            yield client
    finally:
        configure_queue(settings)
        celery_app.amqp._producer_pool = None


def report(db: Session, role: WorkerRole, state: str) -> None:
    """A process says that it lives."""
    db.execute(report_alive(role, role, state=state, base_model="mini", base_model_hash="h", has_hypernetwork=True))
    db.commit()


async def test_a_service_with_all_its_parts_is_ready(client: httpx.AsyncClient, db: Session) -> None:
    report(db, WorkerRole.GPU, "busy")
    report(db, WorkerRole.HOUSEKEEPING, "ready")
    answer = await client.get("/readyz", headers={"Authorization": ""})
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert set(answer.json()["checks"].values()) == {"ok"}


@pytest.mark.parametrize("state", ["loading", "failed"])
async def test_a_worker_that_cannot_work_degrades(client: httpx.AsyncClient, db: Session, state: str) -> None:
    report(db, WorkerRole.GPU, state)
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert (answer.json()["checks"]["worker"], answer.json()["checks"]["housekeeping"]) == ("missing", "missing")


async def test_a_base_model_whose_worker_fell_silent_degrades(client: httpx.AsyncClient, db: Session) -> None:
    report(db, WorkerRole.GPU, "busy")
    report(db, WorkerRole.HOUSEKEEPING, "ready")
    db.execute(report_alive("another", WorkerRole.GPU, state="ready", base_model="another"))
    db.commit()
    assert (await client.get("/readyz")).json()["status"] == "ready"
    another = update(WorkerProcess).where(WorkerProcess.name == "another")
    for minutes, status in ((5, "degraded"), (11, "ready")):  # for ten minutes jobs for it are taken
        db.execute(another.values(seen_at=func.now() - timedelta(minutes=minutes)))
        db.commit()
        health = (await client.get("/readyz")).json()
        assert (health["status"], health["checks"]["worker"] == "ok") == (status, status == "ready")


async def test_without_a_broker_jobs_are_taken_all_the_same(
    client: httpx.AsyncClient, settings: Settings, db: Session
) -> None:
    broker = f"redis://127.0.0.1:{closed_port()}/0"
    async with another_service(settings, broker_url=broker) as without:
        without.headers["Authorization"] = client.headers["Authorization"]
        assert (await submit(without, photo_bytes())).status_code == 202
        health = await without.get("/readyz")
    assert (health.status_code, health.json()["status"], health.json()["checks"]["broker"]) == (
        200,
        "degraded",
        "missing",
    )


async def test_without_a_bucket_photos_are_asked_for_later(client: httpx.AsyncClient, settings: Settings) -> None:
    async with another_service(settings, s3_endpoint=f"http://127.0.0.1:{closed_port()}") as without:
        without.headers["Authorization"] = client.headers["Authorization"]
        answer = await submit(without, photo_bytes())
        health = await without.get("/readyz")
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (503, "unavailable", True)
    assert int(answer.headers["Retry-After"]) >= 1
    assert (health.status_code, health.json()["checks"]["bucket"]) == (503, "missing")


async def test_without_a_database_the_service_says_so(settings: Settings) -> None:
    nowhere = f"postgresql+psycopg://a:b@127.0.0.1:{closed_port()}/c"
    async with another_service(settings, database_url=nowhere) as without:
        answer = await without.get("/v1/jobs", headers={"Authorization": "Bearer hdb_live_x"})
        health, alive = await without.get("/readyz"), await without.get("/livez")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "Retry-After" in answer.headers
    assert (health.status_code, health.json()["checks"]["database"], alive.status_code) == (503, "missing", 200)
