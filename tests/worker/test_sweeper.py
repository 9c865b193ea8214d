"""What one sweep does, on the real database and bucket; and that a second one does nothing."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from core.lifecycle import JobKind, JobStatus
from core.object_keys import generation_prefix, photo_key, subject_prefix, upload_key
from core.queue import ring_again
from core.storage import ObjectMissing
from core.tables import (
    Adapter,
    ApiKey,
    ErasureReceipt,
    GeneratedImage,
    Generation,
    IdempotencyRecord,
    Job,
    JobEvent,
    Subject,
    Upload,
    WorkerProcess,
)
from tests.factories import in_future, make_account, make_adapter, make_generation, make_job, make_subject
from tests.worker.conftest import Bench
from tests.worker.test_orphans import HOURS, id_of
from worker.sweeper import Sweeper


class Sweeping:
    """A sweeper whose bells are heard here."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bells: list[tuple[JobKind, str]] = []
        # The database has only just started: with a lease this short it is old enough to judge.
        settings = bench.settings.model_copy(update={"lease_seconds": 0.001, "max_running_seconds": 0.001})
        monkeypatch.setattr("core.queue.ring", self.ring)
        monkeypatch.setattr("core.queue._waiting", lambda queue: 0)
        self.sweeper = Sweeper(bench.sessions, bench.store, settings, ring=ring_again)

    def ring(self, kind: JobKind, base_model: str) -> bool:
        self.bells.append((kind, base_model))
        return True

    def __call__(self) -> list[tuple[JobKind, str]]:
        self.bells.clear()
        self.sweeper.sweep()
        return list(self.bells)


@pytest.fixture
def sweep(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Sweeping:
    return Sweeping(bench, monkeypatch)


def lost(bench: Bench, *, strikes: int = 0, queued_seconds_ago: float = 0) -> Job:
    return bench.submit(
        status=JobStatus.RUNNING,
        attempt=1,
        lease_expires_at=in_future(-1),
        worker="dead",
        strikes=strikes,
        queued_at=in_future(-queued_seconds_ago),
    )


def count(bench: Bench, table: type) -> int:
    with bench.sessions() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_dead_workers_job_waits_again_with_a_strike_and_a_bell(bench: Bench, sweep: Sweeping) -> None:
    job = lost(bench, queued_seconds_ago=60)
    assert sweep() == [(JobKind.PERSONALIZE, "mini")]
    now = bench.read(job)
    assert (now.status, now.strikes, now.attempt) == (JobStatus.QUEUED, 1, 1)


def test_the_third_strike_fails_the_job(bench: Bench, sweep: Sweeping) -> None:
    job = lost(bench, strikes=2)
    sweep()
    now = bench.read(job)
    assert now.error is not None
    assert (now.status, now.strikes, now.error["code"]) == (JobStatus.FAILED, 3, "worker_lost")
    assert now.expires_at is not None


def test_sweeping_twice_is_sweeping_once(bench: Bench, sweep: Sweeping) -> None:
    jobs = [lost(bench, queued_seconds_ago=60), lost(bench, strikes=2), bench.submit(deadline_at=in_future(-1))]
    sweep()
    first = [(job.status, job.strikes, job.event_count) for job in map(bench.read, jobs)]
    assert sweep() == []
    assert [(job.status, job.strikes, job.event_count) for job in map(bench.read, jobs)] == first


def test_a_deadline_that_passed_expires_the_job(bench: Bench, sweep: Sweeping) -> None:
    job = bench.submit(deadline_at=in_future(-1))
    sweep()
    now = bench.read(job)
    assert now.error is not None
    assert (now.status, now.error["code"]) == (JobStatus.EXPIRED, "deadline_passed")


def test_a_forgotten_queue_gets_a_bell_for_each_job_but_not_hundreds(bench: Bench, sweep: Sweeping) -> None:
    with bench.sessions.begin() as session:
        subject = make_subject(session)
        for _ in range(20):
            make_job(session, subject, queued_at=in_future(-60))
    assert sweep() == [(JobKind.PERSONALIZE, "mini")] * 8
    assert sweep() == []


def test_photos_go_when_no_job_needs_them(bench: Bench, sweep: Sweeping) -> None:
    ended, waiting = bench.submit(status=JobStatus.CANCELED), bench.submit()
    kept = bench.submit(status=JobStatus.FAILED, keep_photo=True)
    sweep()
    with bench.sessions() as session:
        photos = [session.get_one(Subject, job.subject_id).photo_keys for job in (ended, waiting, kept)]
    assert list(map(len, photos)) == [0, 1, 1]
    assert all(bench.store.get(key) for keys in photos for key in keys)
    assert ended.subject_id is not None
    with pytest.raises(ObjectMissing):
        bench.store.get(photo_key(ended.subject_id))


def test_pictures_go_when_their_time_is_over(bench: Bench, sweep: Sweeping) -> None:
    with bench.sessions.begin() as session:
        subject = make_subject(session)
        jobs = {
            name: make_generation(session, subject, expires_at=in_future(seconds))
            for name, seconds in (("old", -1), ("busy", -1), ("new", 60))
        }
        jobs["old"].status = jobs["new"].status = JobStatus.SUCCEEDED
    generations = {}
    with bench.sessions() as session:
        for name, job in jobs.items():
            generations[name] = session.scalars(select(Generation).where(Generation.job_id == job.id)).one()
            key = f"{generation_prefix(subject.id, generations[name].id)}1/000.png"
            bench.store.put(key, b"picture", content_type="image/png")
    sweep()
    left = {name: list(bench.store.keys(generation_prefix(subject.id, own.id))) for name, own in generations.items()}
    assert {name: len(keys) for name, keys in left.items()} == {"old": 0, "busy": 1, "new": 1}
    assert count(bench, Generation) == 2


def test_old_rows_go_but_not_the_job_behind_living_weights(bench: Bench, sweep: Sweeping) -> None:
    bench.submit(status=JobStatus.SUCCEEDED, expires_at=in_future(-1))
    with bench.sessions.begin() as session:
        behind = make_job(session, status=JobStatus.SUCCEEDED, expires_at=in_future(-1))
        make_adapter(session, behind)
        session.add(
            IdempotencyRecord(
                account_id=behind.account_id,
                key="old",
                request_sha256="",
                status=202,
                location="",
                expires_at=in_future(-1),
            )
        )
        session.add(WorkerProcess(name="gone", role="gpu", state="ready", seen_at=in_future(-2 * 86_400)))
    sweep()
    with bench.sessions() as session:
        assert session.scalars(select(Job.id)).all() == [behind.id]
        assert session.scalars(select(JobEvent.job_id)).all() == [behind.id]
        assert [row.role for row in session.scalars(select(WorkerProcess))] == ["housekeeping"]
    assert count(bench, IdempotencyRecord) == 0


def test_tokens_that_ended_go_and_keys_stay(bench: Bench, sweep: Sweeping) -> None:
    with bench.sessions.begin() as session:
        account = make_account(session)
        for name, one_subject, seconds in (("old", True, -1), ("new", True, 60), ("a backend's", False, -1)):
            session.add(
                ApiKey(
                    account_id=account.id,
                    sha256=name,
                    hint=name,
                    scopes=[],
                    one_subject=one_subject,
                    expires_at=in_future(seconds),
                )
            )
    sweep()
    with bench.sessions() as session:
        assert set(session.scalars(select(ApiKey.hint))) == {"new", "a backend's"}


def test_photos_that_no_row_names_go(bench: Bench, sweep: Sweeping) -> None:
    lost = id_of(3 * HOURS)
    bench.store.put(photo_key(lost), b"photo", content_type="image/png")
    sweep()
    assert list(bench.store.keys(subject_prefix(lost))) == []


def test_uploads_that_nobody_used_go(bench: Bench, sweep: Sweeping) -> None:
    with bench.sessions.begin() as session:
        upload = Upload(account_id=make_account(session).id, expires_at=in_future(-1))
        session.add(upload)
    bench.store.put(upload_key(upload.id), b"photo", content_type="image/png")
    sweep()
    assert count(bench, Upload) == 0
    assert list(bench.store.keys(upload_key(upload.id))) == []


def test_an_erasure_leaves_nothing_and_looks_twice(bench: Bench, sweep: Sweeping) -> None:
    personalized = bench.submit(client_reference="Ada's phone")
    bench.personalizing().run_one("mini")
    with bench.sessions.begin() as session:
        subject = session.get_one(Subject, personalized.subject_id)
        subject.name = "Ada"
        waiting = make_generation(session, subject, prompts=("Ada on the moon",))
        busy = make_job(session, subject, status=JobStatus.RUNNING, lease_expires_at=in_future(60))
        job = make_job(session, subject, kind=JobKind.ERASE)
        session.add(ErasureReceipt(account_id=subject.account_id, subject_id=subject.id))
    assert bench.erasing().run_one("mini") == 1
    assert bench.read(job).status == JobStatus.SUCCEEDED
    assert (bench.read(waiting).status, bench.read(busy).cancel_requested) == (JobStatus.CANCELED, True)
    assert bench.read(waiting).expires_at is not None
    assert list(bench.store.keys(subject_prefix(subject.id))) == []
    assert [count(bench, table) for table in (Adapter, Generation, GeneratedImage)] == [0, 0, 0]
    # How many pictures were asked for still counts for the account's limit; what they showed is forgotten.
    assert bench.read(waiting).params == {"pictures": [bench.read(waiting).seed]}
    assert (bench.read(personalized).params, bench.read(personalized).client_reference) == ({}, None)
    bench.store.put(f"{subject_prefix(subject.id)}late", b"by a worker", content_type="image/png")
    sweep()
    assert list(bench.store.keys(subject_prefix(subject.id))) == []
    with bench.sessions() as session:
        receipt = session.scalars(select(ErasureReceipt)).one()
        erased = session.get_one(Subject, subject.id)
    assert (receipt.erased_at is None, receipt.verified_at is None, receipt.objects) == (False, False, 2)
    assert (erased.name, erased.photo_keys, erased.adapter_id, erased.erased_at is None) == (None, [], None, False)


def test_after_an_outage_of_the_database_nobody_is_judged_for_a_lease(bench: Bench) -> None:
    patient = bench.settings.model_copy(update={"lease_seconds": timedelta(days=1).total_seconds()})
    job = lost(bench)
    Sweeper(bench.sessions, bench.store, patient, ring=lambda kind, base_model, jobs: None).sweep()
    assert bench.read(job).status == JobStatus.RUNNING
