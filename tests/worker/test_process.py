"""What a pool process does with a bell, without Celery around it."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from core.lifecycle import JobKind, JobStatus, WorkerRole
from core.retention import hide_subject
from core.settings import Settings
from core.tables import Subject, WorkerProcess
from tests.factories import make_generation, make_job, make_subject
from tests.fakes import FakeEngine
from tests.waiting import eventually
from tests.worker.conftest import Bench
from worker.parent import StopFile
from worker.presence import REPORT_SECONDS
from worker.process import Process, find_loader


class Loading:
    """An engine that can be loaded only while it is `possible`."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.possible, self.times = engine, True, 0

    def __call__(self, settings: Settings) -> FakeEngine:
        self.times += 1
        if not self.possible:
            raise OSError("the hub is not reachable")
        return self.engine


@pytest.fixture
def loading(bench: Bench) -> Loading:
    return Loading(bench.engine)


@pytest.fixture
def process(bench: Bench, loading: Loading, tmp_path: Path) -> Iterator[Process]:
    process = Process(bench.settings, WorkerRole.GPU, stop=StopFile(tmp_path / "stop"), load_engine=loading)
    yield process
    process.close()


def sizes(bench: Bench) -> list[int]:
    with bench.sessions() as session:
        return list(session.scalars(select(WorkerProcess.batch_size).where(WorkerProcess.state == "ready")))


def states(bench: Bench) -> list[str]:
    with bench.sessions() as session:
        return list(session.scalars(select(WorkerProcess.state)))


def test_a_bell_is_answered_until_nothing_is_left(bench: Bench, process: Process, loading: Loading) -> None:
    jobs = [bench.submit() for _ in range(6)]
    process.open()
    process.drain(JobKind.PERSONALIZE, "mini")
    assert {bench.read(job).status for job in jobs} == {JobStatus.SUCCEEDED}
    assert (bench.engine.batches, loading.times) == ([4, 2], 1)


def test_no_kind_waits_for_the_others_backlog(bench: Bench, process: Process) -> None:
    first = bench.submit()
    bench.personalizing().run_one("mini")
    with bench.sessions.begin() as session:
        drawing = make_generation(session, session.get_one(Subject, first.subject_id))
    backlog = [bench.submit() for _ in range(9)]
    process.open()
    process.drain(JobKind.PERSONALIZE, "mini")
    drawn, last = bench.read(drawing).finished_at, max(str(bench.read(job).finished_at) for job in backlog)
    assert str(drawn) < last


def test_a_job_put_back_ends_the_round(bench: Bench, process: Process) -> None:
    job = bench.submit()
    bench.engine.refuse = lambda request: ZeroDivisionError()
    process.open()
    process.drain(JobKind.PERSONALIZE, "mini")
    assert (bench.read(job).status, bench.read(job).attempt) == (JobStatus.QUEUED, 1)


def test_networks_that_do_not_load_are_reported_and_tried_again(
    bench: Bench, process: Process, loading: Loading
) -> None:
    loading.possible = False
    job = bench.submit()
    process.open()
    eventually(lambda: states(bench) == ["failed"])
    process.drain(JobKind.PERSONALIZE, "mini")
    assert bench.read(job).status == JobStatus.QUEUED
    loading.possible = True
    process.drain(JobKind.PERSONALIZE, "mini")
    assert bench.read(job).status == JobStatus.SUCCEEDED
    eventually(lambda: states(bench) == ["ready"])


def test_a_process_that_is_to_end_claims_nothing(bench: Bench, process: Process, tmp_path: Path) -> None:
    job = bench.submit()
    process.open()
    (tmp_path / "stop").touch()
    process.drain(JobKind.PERSONALIZE, "mini")
    assert bench.read(job).attempt == 0


def test_it_says_how_much_it_takes_at_once_and_says_so_again_when_memory_does_not_suffice(
    bench: Bench, process: Process
) -> None:
    process.open()
    eventually(lambda: sizes(bench) == [4])
    bench.engine.fits = 2
    jobs = [bench.submit() for _ in range(4)]
    process.drain(JobKind.PERSONALIZE, "mini")
    assert {bench.read(job).status for job in jobs} == {JobStatus.SUCCEEDED}
    eventually(lambda: sizes(bench) == [2])


def test_housekeeping_takes_one_job_at_a_time(bench: Bench, tmp_path: Path) -> None:
    def no_engine(settings: Settings) -> FakeEngine:
        raise AssertionError

    process = Process(bench.settings, WorkerRole.HOUSEKEEPING, stop=StopFile(tmp_path / "stop"), load_engine=no_engine)
    process.open()
    assert {batches.size for batches in process._batches.values()} == {1}
    process.close()


@pytest.mark.parametrize("heard", [True, False])
def test_a_backlog_of_housekeeping_lets_sweeps_and_webhooks_in(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    rung: list[JobKind] = []

    def ring(kind: JobKind, base_model: str) -> bool:
        rung.append(kind)
        return heard

    monkeypatch.setattr("worker.process.ring", ring)
    loader = find_loader("nobody:loads")
    process = Process(bench.settings, WorkerRole.HOUSEKEEPING, stop=StopFile(tmp_path / "stop"), load_engine=loader)
    with bench.sessions.begin() as session:
        jobs = [make_job(session, make_subject(session), kind=JobKind.ERASE) for _ in range(3)]
    process.drain(JobKind.ERASE, "mini")
    process.close()
    ended = [bench.read(job).status == JobStatus.SUCCEEDED for job in jobs]
    # A bell behind what waits in the queue; where the broker is away nothing waits there, and nobody would come back.
    assert (rung, sum(ended)) == (([JobKind.ERASE], 1) if heard else ([JobKind.ERASE] * 3, 3))


def test_an_idle_engine_forgets_who_was_erased_and_nobody_else(bench: Bench, process: Process) -> None:
    with bench.sessions.begin() as session:
        erased, other = make_subject(session), make_subject(session)
    process.open()
    eventually(lambda: states(bench) == ["ready"])
    bench.engine.holds = {erased.id, other.id}
    with bench.sessions.begin() as session:
        session.execute(hide_subject(erased.id))
    eventually(lambda: bench.engine.holds == {other.id}, within=2 * REPORT_SECONDS + 5)


def test_a_busy_engine_forgets_at_the_end_of_its_batch(bench: Bench, process: Process) -> None:
    with bench.sessions.begin() as session:
        erased = make_subject(session)
        session.execute(hide_subject(erased.id))
    bench.submit()
    seen: list[set[UUID]] = []

    def between_steps(step: int) -> None:
        bench.engine.holds = {erased.id}
        process._forget_erased()  # as the thread beside it does
        seen.append(bench.engine.holds)

    bench.engine.between_steps = between_steps
    process.open()
    process.drain(JobKind.PERSONALIZE, "mini")
    assert seen == [{erased.id}] * bench.engine.steps
    assert bench.engine.holds == set()


def test_a_wait_ends_with_the_process(tmp_path: Path) -> None:
    stop = StopFile(tmp_path / "stop")
    stop.wait(0.05)
    assert not stop.is_set()
    (tmp_path / "stop").touch()
    stop.wait(3600)
    assert stop.is_set()


def test_a_loader_is_found_by_its_name_when_it_is_called() -> None:
    load = find_loader("nowhere:at_all")
    with pytest.raises(ModuleNotFoundError):
        load(Settings())
