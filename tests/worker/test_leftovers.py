"""Files that an attempt stored and never recorded, of jobs that ended in every way."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from core.lifecycle import JobStatus
from core.object_keys import adapter_key, attempts_prefix
from core.storage import StorageUnavailable
from core.tables import Job
from tests.factories import in_future
from tests.worker.conftest import Bench
from worker import leftovers
from worker.leftovers import Leftovers

LONG_AGO = 3 * 3600


def left_by(bench: Bench, *, status: JobStatus, attempt: int, seconds_ago: float = LONG_AGO) -> Job:
    """A job that has ended, with a file of its first attempt that no row knows."""
    job = bench.submit(status=status, attempt=attempt, finished_at=in_future(-seconds_ago))
    assert job.subject_id is not None
    bench.store.put(adapter_key(job.subject_id, job.id, 1), b"weights", content_type="application/octet-stream")
    return job


def files(bench: Bench, job: Job) -> list[str]:
    assert job.subject_id is not None
    return list(bench.store.keys(attempts_prefix(job.kind, job.subject_id, job.id)))


def of(bench: Bench) -> Leftovers:
    return Leftovers(bench.sessions, bench.store, bench.settings)


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED])
def test_a_job_without_a_result_leaves_no_file(bench: Bench, status: JobStatus) -> None:
    job = left_by(bench, status=status, attempt=1)
    assert of(bench).delete_some() == 1
    assert files(bench, job) == []


def test_of_several_attempts_the_recorded_one_leaves_a_file(bench: Bench) -> None:
    job = bench.submit(attempt=1)
    assert job.subject_id is not None
    first, second = (adapter_key(job.subject_id, job.id, attempt) for attempt in (1, 2))
    bench.store.put(first, b"stored by a worker that died", content_type="application/octet-stream")
    bench.personalizing().run_one("mini")
    with bench.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job.id).values(finished_at=in_future(-LONG_AGO)))
    assert of(bench).delete_some() == 1
    assert files(bench, job) == [second]


def test_while_a_worker_may_still_write_nothing_is_touched(bench: Bench) -> None:
    late = bench.settings.max_running_seconds + bench.settings.lease_seconds
    job = left_by(bench, status=JobStatus.FAILED, attempt=3, seconds_ago=late)
    running = left_by(bench, status=JobStatus.RUNNING, attempt=2)
    assert of(bench).delete_some() == 0
    assert (len(files(bench, job)), len(files(bench, running))) == (1, 1)


def test_each_look_goes_on_where_the_last_one_ended_and_an_outage_skips_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "AT_ONCE", 2)
    jobs = [left_by(bench, status=JobStatus.FAILED, attempt=1) for _ in range(5)]
    with bench.sessions.begin() as session:  # as one statement ends many
        session.execute(update(Job).values(finished_at=in_future(-LONG_AGO)))
    looking = of(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "delete", _away)
        with pytest.raises(StorageUnavailable):
            looking.delete_some()
    assert [looking.delete_some() for _ in range(4)] == [2, 2, 1, 0]
    assert not any(files(bench, job) for job in jobs)
    left_by(bench, status=JobStatus.FAILED, attempt=1, seconds_ago=LONG_AGO)
    assert looking.delete_some() == 0  # not before a while has passed
    assert timedelta(seconds=leftovers.EVERY_SECONDS) < leftovers.LOOK_BACK


def _away(key: str) -> None:
    raise StorageUnavailable
