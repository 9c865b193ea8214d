"""The service under measurement: embedded servers, the API, the bare endpoint beside it, and a worker, as processes."""

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import httpx
import numpy as np
import psutil
from PIL import Image
from sqlalchemy import delete, update

from benchmarks.api.bare import BODY, JOB
from cli.embedded import embedded_servers
from cli.ports import free_ports
from core.accounts import Scope, create_account, create_key
from core.database import Sessions, make_engine, make_sessions
from core.ids import JOB as JOB_PREFIX
from core.ids import encode_id
from core.lifecycle import JobKind, JobStatus, Phase
from core.settings import Settings
from core.statements import NOW
from core.storage import ObjectStore
from core.tables import Account, Job
from migrations.upgrade import upgrade

BARE_APP = "benchmarks.api.bare:create_bare_app"
START_SECONDS = 600
POLL_SECONDS = 0.1
# What callers may ask for is not what is measured.
UNLIMITED = {"HDB_REQUESTS_PER_MINUTE": "100000000", "HDB_MAX_ACCOUNT_JOBS": "1000000"}
SCOPES = [Scope.READ, Scope.SUBJECTS_WRITE, Scope.GENERATIONS_WRITE]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Where everything is."""

    api: str
    bare: str
    api_process: psutil.Process
    bare_process: psutil.Process
    key: str
    job_path: str
    sessions: Sessions
    environment: dict[str, str]
    folder: Path
    worker: str = "worker.main"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@contextmanager
def measured_service() -> Iterator[Measured]:
    """Everything but the worker, with one running job to poll."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hdb-benchmark-")))
        settings = Settings.model_validate(stack.enter_context(embedded_servers(folder / "servers")))
        upgrade(settings.database_url.get_secret_value())
        ObjectStore(settings).create_bucket()
        engine = make_engine(settings)
        stack.callback(engine.dispose)
        sessions = make_sessions(engine)
        key, job_id = make_running_job(sessions)
        environment = (
            os.environ | UNLIMITED | _variables(settings) | {JOB: str(job_id), BODY: str(folder / "body.json")}
        )
        api_port, bare_port = free_ports(2)
        api = stack.enter_context(_uvicorn("app.main:create_app", api_port, environment, log=folder / "api.log"))
        job_path = f"/v1/jobs/{encode_id(JOB_PREFIX, job_id)}"
        answer = httpx.get(f"http://127.0.0.1:{api_port}{job_path}", headers={"Authorization": f"Bearer {key}"})
        (folder / "body.json").write_bytes(answer.raise_for_status().content)
        bare = stack.enter_context(_uvicorn(BARE_APP, bare_port, environment, log=folder / "bare.log"))
        yield Measured(
            api=f"http://127.0.0.1:{api_port}",
            bare=f"http://127.0.0.1:{bare_port}",
            api_process=api,
            bare_process=bare,
            key=key,
            job_path=job_path,
            sessions=sessions,
            environment=environment,
            folder=folder,
        )


def make_running_job(sessions: Sessions) -> tuple[str, UUID]:
    """A key, and a job in mid-finetuning that nobody works on."""
    with sessions.begin() as session:
        account: Account = create_account(session, "benchmark", actor="benchmark")
        _, key = create_key(session, account, scopes=SCOPES, actor="benchmark")
        job = Job(account_id=account.id, kind=JobKind.GENERATE, base_model="mini", seed=1)
        session.add(job)
        session.flush()
        running = {"status": JobStatus.RUNNING, "attempt": 1, "phase": Phase.GENERATING, "step": 9, "total_steps": 25}
        times = {"started_at": NOW, "lease_expires_at": NOW + timedelta(days=1)}
        session.execute(update(Job).where(Job.id == job.id).values(**running, **times))
    return key, job.id


def submit(api: httpx.Client, photo: bytes) -> str:
    """A new subject; the id of its job."""
    answer = api.post("/v1/subjects", files={"photo": photo}, data={"consent": "self"}, timeout=60)
    job_id: str = answer.raise_for_status().json()["job"]["id"]
    return job_id


@contextmanager
def worker(measured: Measured) -> Iterator[None]:
    """A GPU worker, once it is ready. What the other measurements left in the queue goes first."""
    with measured.sessions.begin() as session:
        session.execute(delete(Job).where(Job.status == JobStatus.QUEUED))
    log = (measured.folder / "worker.log").open("wb")
    command = [sys.executable, "-m", measured.worker, "gpu"]
    with log, _ended(subprocess.Popen(command, env=measured.environment, stdout=log, stderr=log)):
        with httpx.Client(base_url=measured.api, timeout=60) as client:
            deadline = time.monotonic() + START_SECONDS
            while client.get("/readyz").json()["checks"]["worker"] != "ok":
                assert time.monotonic() < deadline, (measured.folder / "worker.log").read_text()[-2000:]
                time.sleep(POLL_SECONDS)
        yield


def selfie(kilobytes: int = 50) -> bytes:
    """A JPEG of a phone's proportions and of that size at most: soft spots, so that it is as detailed as a face."""
    rng = np.random.default_rng(0)
    spots = Image.fromarray(rng.integers(0, 256, (32, 24, 3), np.uint8)).resize((960, 1280), Image.Resampling.BICUBIC)
    sizes = []
    for quality in range(10, 96, 5):
        file = io.BytesIO()
        spots.save(file, "JPEG", quality=quality)
        sizes.append(file.getvalue())
    return max((photo for photo in sizes if len(photo) <= kilobytes * 1000), key=len)


def _variables(settings: Settings) -> dict[str, str]:
    given = settings.model_dump(exclude_defaults=True)
    return {
        f"HDB_{name.upper()}": str(getattr(value, "get_secret_value", lambda value=value: value)())
        for name, value in given.items()
    }


@contextmanager
def _uvicorn(factory: str, port: int, environment: dict[str, str], *, log: Path) -> Iterator[psutil.Process]:
    """Its log lines go into a file: the benchmark's own output is the figures."""
    listen = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "warning"]
    command = [sys.executable, "-m", "uvicorn", "--factory", factory, *listen]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    with _ended(process):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/livez")
                break
            except httpx.TransportError:
                assert process.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, f"{factory} did not answer"
                time.sleep(POLL_SECONDS)
        yield psutil.Process(process.pid)


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
