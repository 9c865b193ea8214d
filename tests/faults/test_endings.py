"""A worker ends: when it is told to, whatever is away or hangs, and when its parent is gone. Nobody is left behind."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from cli.ports import free_ports
from core.lifecycle import WorkerRole
from core.settings import Settings
from core.storage import ObjectStore
from tests.crew import Crew, crew_of
from tests.waiting import eventually

STARTING_SECONDS, ENDING_SECONDS = 150, 30  # less than a worker's `stop_seconds`
HARD_END = 75  # EX_TEMPFAIL
pytestmark = pytest.mark.slow


@pytest.fixture
def lonely(settings: Settings, store: ObjectStore, tmp_path: Path) -> Iterator[Crew]:
    """Workers whose database and broker are away."""
    sql, resp = free_ports(2)
    away = {
        "database_url": SecretStr(f"postgresql+psycopg://hdb:hdb@127.0.0.1:{sql}/hdb"),
        "broker_url": SecretStr(f"redis://127.0.0.1:{resp}/0"),
    }
    with crew_of(settings.model_copy(update=away), store, tmp_path) as crew:
        yield crew


def family_of(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    parent = psutil.Process(worker.pid)
    return [parent, *parent.children(recursive=True)]


def pool_of(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [one for one in psutil.Process(worker.pid).children() if "--billiard-fork" in one.cmdline()]


def left_of(family: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def all_end(worker: subprocess.Popen[bytes], family: list[psutil.Process]) -> int:
    """Its exit code, once it and its children have ended."""
    code = worker.wait(ENDING_SECONDS)
    eventually(lambda: not left_of(family), within=ENDING_SECONDS)
    return code


@pytest.mark.parametrize(
    ("role", "complaint"),
    [(WorkerRole.GPU, "consumer: Cannot connect"), (WorkerRole.HOUSEKEEPING, "beat: Connection error")],
)
def test_a_worker_that_never_saw_its_servers_ends_when_it_is_told(
    lonely: Crew, capfd: pytest.CaptureFixture[str], role: WorkerRole, complaint: str
) -> None:
    worker = lonely.start(role)
    eventually(lambda: complaint in capfd.readouterr().err, within=STARTING_SECONDS)
    family = family_of(worker)
    worker.send_signal(signal.SIGTERM)
    assert all_end(worker, family) == 0


def test_a_worker_that_is_still_loading_ends_when_it_is_told(crew: Crew) -> None:
    worker = crew.start(module="tests.worker.worker_that_never_loads")
    family = [*family_of(worker), crew.at_step("load")]
    worker.send_signal(signal.SIGTERM)
    assert all_end(worker, family) == 0


def test_a_worker_whose_step_hangs_ends_in_time(settings: Settings, crew: Crew) -> None:
    crew.settings = settings.model_copy(update={"stop_seconds": 3})
    crew.hold(2)
    worker = crew.start()
    crew.submit()
    crew.start(WorkerRole.HOUSEKEEPING)
    crew.at_step(2)
    family = family_of(worker)
    worker.send_signal(signal.SIGTERM)
    assert all_end(worker, family) == HARD_END


def test_a_child_whose_parent_vanished_before_it_could_look_ends(crew: Crew) -> None:
    worker = crew.start()
    child = eventually(lambda: pool_of(worker), within=STARTING_SECONDS)[0]
    child.suspend()
    family = family_of(worker)
    worker.kill()
    worker.wait()
    child.resume()
    eventually(lambda: not left_of(family), within=STARTING_SECONDS)
