"""Real worker processes for tests: Celery, spawned pools and all, but for their networks."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from core.database import Sessions, make_engine, make_sessions
from core.lifecycle import JobStatus, WorkerRole
from core.queue import configure_queue
from core.settings import Settings
from core.storage import ObjectStore
from core.tables import Job
from tests.factories import make_job, make_subject, photo_bytes
from tests.fakes import FOLDER
from tests.waiting import eventually

LEASE_SECONDS, SWEEP_SECONDS = 2, 0.5
STOP_SECONDS = 60


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings as another process reads them."""
    given = settings.model_dump(exclude_none=True, include=set(Settings.model_fields))
    plain = {name: getattr(value, "get_secret_value", lambda value=value: value)() for name, value in given.items()}
    return {f"HDB_{name.upper()}": str(value) for name, value in plain.items()}


class Crew:
    """Starts workers, holds their engines at a step, kills them, and looks at what becomes of the jobs."""

    def __init__(self, settings: Settings, sessions: Sessions, store: ObjectStore, folder: Path) -> None:
        self.settings, self.sessions, self.store, self.folder = settings, sessions, store, folder
        self._workers: list[subprocess.Popen[bytes]] = []
        configure_queue(settings)

    def start(
        self, role: WorkerRole = WorkerRole.GPU, *, module: str = "tests.worker.worker_with_fake_engine"
    ) -> subprocess.Popen[bytes]:
        """A worker's parent process; its pool follows by itself."""
        quick = {"lease_seconds": LEASE_SECONDS, "sweep_seconds": SWEEP_SECONDS, "log_json": True}
        env = os.environ | environment_of(self.settings.model_copy(update=quick))
        command = [sys.executable, "-m", module, role]
        worker = subprocess.Popen(command, env=env | {FOLDER: str(self.folder)})
        self._workers.append(worker)
        return worker

    def submit(self, photo: bytes | None = None, **fields: object) -> Job:
        """A queued job, as the API leaves it before it rings."""
        with self.sessions.begin() as session:
            subject = make_subject(session)
            self.store.put(subject.photo_keys[0], photo or photo_bytes(), content_type="image/png")
            return make_job(session, subject, **{"base_model": self.settings.model_name} | fields)

    def read(self, job: Job) -> Job:
        """The row as it is now."""
        with self.sessions() as session:
            return session.get_one(Job, job.id)

    def becomes(self, job: Job, status: JobStatus, *, within: float = 150) -> Job:
        """Wait until the job has that status."""

        def look() -> Job | None:
            row = self.read(job)
            return row if row.status == status else None

        return eventually(look, within=within)

    def hold(self, step: int) -> None:
        """From now on engines stop after that step."""
        (self.folder / f"hold-{step}").touch()

    def let_go(self, step: int) -> None:
        """And go on."""
        (self.folder / f"hold-{step}").unlink()

    def at_step(self, step: int | str) -> psutil.Process:
        """Wait until an engine is there; its process."""
        footprint = eventually(lambda: next(self.folder.glob(f"step-{step}-*"), None), within=150)
        footprint.unlink()
        return psutil.Process(int(footprint.name.rsplit("-", 1)[1]))

    def end(self) -> None:
        """Nobody is left behind."""
        for hold in self.folder.glob("hold-*"):
            hold.unlink()
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self._workers:
            try:
                worker.wait(STOP_SECONDS)
            finally:
                worker.kill()


@contextmanager
def crew_of(settings: Settings, store: ObjectStore, folder: Path) -> Iterator[Crew]:
    """A crew for the length of a `with`."""
    engine = make_engine(settings)
    crew = Crew(settings, make_sessions(engine), store, folder)
    try:
        yield crew
    finally:
        crew.end()
        engine.dispose()
