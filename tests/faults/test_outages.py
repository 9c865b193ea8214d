"""The database, or the broker and all its messages, are away for a while: jobs wait, and none is lost."""

import threading
from pathlib import Path

import pytest

from cli.servers import Server
from core.database import make_engine, make_sessions
from core.lifecycle import JobStatus, WorkerRole
from core.settings import Settings
from core.storage import ObjectStore
from tests.crew import crew_of
from tests.worker.conftest import Bench

Fragile = tuple[Settings, dict[str, Server]]


def stop(server: Server) -> None:
    server.ask_to_stop()
    server.wait_stopped()


def start(server: Server) -> None:
    server.begin()
    server.wait_ready()


def test_a_database_that_restarts_while_a_job_runs_costs_no_attempt(fragile: Fragile, store: ObjectStore) -> None:
    settings, servers = fragile
    postgres = servers["postgres"]
    engine = make_engine(settings)
    bench = Bench(settings.model_copy(update={"lease_seconds": 1.0}), make_sessions(engine), store)
    job = bench.submit()
    away = threading.Event()

    def between_steps(step: int) -> None:
        if step == 1:
            stop(postgres)
            away.set()

    def wait(timeout: float | None = None) -> bool:
        if away.is_set():
            threading.Event().wait(bench.settings.lease_seconds)  # long enough for the lease to end
            start(postgres)
            away.clear()
        return False

    bench.engine.between_steps = between_steps
    bench.stopping.wait = wait  # type: ignore[method-assign]  # called before each new try of the commit
    bench.personalizing().run_one("mini")
    done = bench.read(job)
    engine.dispose()
    assert (done.status, done.attempt, done.strikes) == (JobStatus.SUCCEEDED, 1, 0)


@pytest.mark.slow
def test_a_job_submitted_without_a_broker_runs_when_it_is_back(
    fragile: Fragile, store: ObjectStore, tmp_path: Path
) -> None:
    settings, servers = fragile
    with crew_of(settings, store, tmp_path) as crew:
        crew.start()
        crew.start(WorkerRole.HOUSEKEEPING)
        crew.becomes(crew.submit(), JobStatus.SUCCEEDED)
        stop(servers["valkey"])
        job = crew.submit()  # and nobody hears a bell
        start(servers["valkey"])
        assert crew.becomes(job, JobStatus.SUCCEEDED).attempt == 1
