"""Real worker processes, killed, asked to stop, rung twice or not at all: no job is lost or done twice."""

import signal
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select

from core.lifecycle import JobKind, JobStatus, WorkerRole
from core.queue import ring
from core.settings import Settings
from core.tables import Adapter, WorkerProcess
from tests.crew import Crew
from tests.waiting import eventually

pytestmark = pytest.mark.slow


def adapters(crew: Crew) -> int:
    with crew.sessions() as session:
        return session.scalar(select(func.count()).select_from(Adapter)) or 0


def test_a_bell_rung_twice_runs_the_job_once(crew: Crew) -> None:
    crew.start()
    job = crew.submit()
    assert ring(JobKind.PERSONALIZE, "mini")
    assert ring(JobKind.PERSONALIZE, "mini")
    crew.becomes(job, JobStatus.SUCCEEDED)
    second = crew.submit()  # its bell is behind the doubled one
    assert ring(JobKind.PERSONALIZE, "mini")
    crew.becomes(second, JobStatus.SUCCEEDED)
    assert (crew.read(job).attempt, crew.read(second).attempt, adapters(crew)) == (1, 1, 2)


def test_a_bell_that_never_rang_is_rung_by_the_sweeper(crew: Crew) -> None:
    crew.start()
    crew.start(WorkerRole.HOUSEKEEPING)
    job = crew.submit()
    assert crew.becomes(job, JobStatus.SUCCEEDED).attempt == 1


def test_a_pool_process_killed_in_mid_finetuning_is_followed_by_a_second_attempt(crew: Crew) -> None:
    crew.hold(2)
    crew.start()
    crew.start(WorkerRole.HOUSEKEEPING)
    job = crew.submit()
    crew.at_step(2).kill()
    crew.let_go(2)
    done = crew.becomes(job, JobStatus.SUCCEEDED)
    assert (done.attempt, done.strikes, adapters(crew)) == (2, 1, 1)


def test_a_worker_killed_whole_leaves_no_orphan_no_file_and_its_job_to_the_next(
    crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    crew.hold(2)
    worker = crew.start()
    crew.start(WorkerRole.HOUSEKEEPING)
    job = crew.submit()
    child = crew.at_step(2)
    worker.kill()
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, within=60)
    assert not list((tmp_path / "tmp").glob("hdb-*"))
    crew.let_go(2)
    crew.start()
    done = crew.becomes(job, JobStatus.SUCCEEDED)
    assert (done.attempt, done.strikes) == (2, 1)


def test_a_job_that_kills_three_workers_is_failed(crew: Crew) -> None:
    crew.hold(2)
    crew.start()
    crew.start(WorkerRole.HOUSEKEEPING)
    job = crew.submit(strikes=1)
    for _ in range(2):
        crew.at_step(2).kill()
    failed = crew.becomes(job, JobStatus.FAILED)
    assert failed.error is not None
    assert (failed.error["code"], failed.strikes) == ("worker_lost", 3)


def test_a_deploy_ends_the_step_and_hands_the_job_back_without_a_strike(crew: Crew) -> None:
    crew.hold(2)
    worker = crew.start()
    crew.start(WorkerRole.HOUSEKEEPING)
    job = crew.submit()
    crew.at_step(2)
    worker.send_signal(signal.SIGTERM)
    crew.let_go(2)
    assert worker.wait(90) == 0
    back = crew.read(job)
    assert (back.status, back.attempt, back.strikes) == (JobStatus.QUEUED, 1, 0)
    crew.start()
    done = crew.becomes(job, JobStatus.SUCCEEDED)
    assert (done.attempt, done.strikes) == (2, 0)


def test_a_worker_says_what_it_serves_and_says_goodbye(
    crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reported() -> list[tuple[str, str, str | None]]:
        with crew.sessions() as session:
            return [(row.role, row.state, row.base_model) for row in session.scalars(select(WorkerProcess))]

    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    worker = crew.start()
    eventually(lambda: reported() == [("gpu", "ready", "mini")], within=150)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(90) == 0
    assert reported() == []
    assert not list((tmp_path / "tmp").glob("hdb-*"))


def test_two_workers_of_one_host_work_side_by_side(settings: Settings, crew: Crew) -> None:
    crew.settings = settings.model_copy(update={"batch_size": 1})
    crew.hold(2)
    crew.start()
    crew.start()
    jobs = [crew.submit(), crew.submit()]
    crew.start(WorkerRole.HOUSEKEEPING)
    at_work = {crew.at_step(2).pid, crew.at_step(2).pid}
    with crew.sessions() as session:
        names = set(session.scalars(select(WorkerProcess.name).where(WorkerProcess.role == WorkerRole.GPU)))
    crew.let_go(2)
    assert [crew.becomes(job, JobStatus.SUCCEEDED).attempt for job in jobs] == [1, 1]
    assert (len(at_work), len(names)) == (2, 2)
