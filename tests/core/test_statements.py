"""How a job moves, on the real database: each statement alone, and two that meet."""

from datetime import timedelta

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.database import Sessions
from core.lifecycle import FINAL, JobKind, JobStatus, Phase
from core.rescue import Rules, end_lost_jobs, expire_overdue_jobs, queues_to_ring, requeue_lost_jobs
from core.statements import (
    cancel_job,
    cancel_jobs_of,
    claim_jobs,
    finish_job,
    point_subject_at,
    queue_order,
    record_progress,
    release_job,
    renew_lease,
)
from core.tables import Adapter, Job, JobEvent, Subject
from tests.factories import BASE_MODEL, in_future, make_account, make_adapter, make_job, make_subject

LEASE = timedelta(seconds=60)
KEEP = timedelta(days=1)
# The test's database has only just started: with a short lease it has been up for long enough to judge.
RULES = Rules(timedelta(milliseconds=1), max_strikes=3)
ERROR = {"code": "worker_lost"}


def claim(
    session: Session, *, limit: int = 8, kind: JobKind = JobKind.PERSONALIZE, model: str = BASE_MODEL
) -> list[Job]:
    return list(session.scalars(claim_jobs(kind, model, limit=limit, lease=LEASE, worker="w")))


def running(session: Session, subject: Subject | None = None, *, lease: float = 60, **fields: object) -> Job:
    state: dict[str, object] = {
        "status": JobStatus.RUNNING,
        "attempt": 1,
        "lease_expires_at": in_future(lease),
        "worker": "w",
    }
    return make_job(session, subject, **state | fields)


def events(session: Session, job: Job) -> list[tuple[int, JobStatus, Phase | None]]:
    statement = select(JobEvent.number, JobEvent.status, JobEvent.phase).where(JobEvent.job_id == job.id)
    return [(number, status, phase) for number, status, phase in session.execute(statement.order_by(JobEvent.number))]


def test_a_claim_raises_the_attempt_and_sets_a_lease(sync_session: Session) -> None:
    job = make_job(sync_session)
    (claimed,) = claim(sync_session)
    assert (claimed.id, claimed.status, claimed.attempt, claimed.worker) == (job.id, JobStatus.RUNNING, 1, "w")
    assert claimed.lease_expires_at is not None
    assert in_future(50) < claimed.lease_expires_at < in_future(61)


def test_a_second_claim_gets_nothing(sync_session: Session) -> None:
    make_job(sync_session)
    assert len(claim(sync_session)) == 1
    assert claim(sync_session) == []


def test_two_claims_at_once_share_the_queue_without_overlap(sync_sessions: Sessions) -> None:
    with sync_sessions.begin() as session:
        subject = make_subject(session)
        made = {make_job(session, subject).id for _ in range(5)}
    with sync_sessions() as one, sync_sessions() as other:
        first = {job.id for job in claim(one, limit=3)}
        second = {job.id for job in claim(other, limit=5)}  # the first three are locked, not yet committed
        one.commit()
        other.commit()
    assert not first & second
    assert first | second == made


def test_only_jobs_of_that_kind_and_base_model_are_claimed(sync_session: Session) -> None:
    make_job(sync_session, kind=JobKind.GENERATE)
    make_job(sync_session, base_model="another")
    assert claim(sync_session) == []


def test_accounts_take_turns_whatever_the_length_of_their_queues(sync_session: Session) -> None:
    greedy, modest = make_subject(sync_session), make_subject(sync_session)
    backlog = [make_job(sync_session, greedy, queued_at=in_future(n - 100)) for n in range(10)]
    late = make_job(sync_session, modest, queued_at=in_future(-1))
    assert {job.id for job in claim(sync_session, limit=2)} == {backlog[0].id, late.id}


def test_what_an_account_has_running_counts_as_its_turn(sync_session: Session) -> None:
    busy, idle = make_subject(sync_session), make_subject(sync_session)
    running(sync_session, busy)
    make_job(sync_session, busy, queued_at=in_future(-100))
    waiting = make_job(sync_session, idle, queued_at=in_future(-1))
    assert [job.id for job in claim(sync_session, limit=1)] == [waiting.id]


def test_within_an_account_age_decides(sync_session: Session) -> None:
    subject = make_subject(sync_session)
    young = make_job(sync_session, subject, queued_at=in_future(-1))
    old = make_job(sync_session, subject, queued_at=in_future(-9))
    assert [job.id for job in claim(sync_session, limit=1)] == [old.id]
    assert [job.id for job in claim(sync_session, limit=1)] == [young.id]


def test_a_job_with_a_strike_is_claimed_alone(sync_session: Session) -> None:
    subject = make_subject(sync_session)
    poison = make_job(sync_session, subject, strikes=1, queued_at=in_future(-9))
    healthy = [make_job(sync_session, subject, queued_at=in_future(n - 5)) for n in range(2)]
    assert [job.id for job in claim(sync_session)] == [poison.id]
    assert {job.id for job in claim(sync_session)} == {job.id for job in healthy}


def test_a_batch_of_healthy_jobs_takes_no_struck_one_along(sync_session: Session) -> None:
    subject = make_subject(sync_session)
    healthy = make_job(sync_session, subject, queued_at=in_future(-9))
    make_job(sync_session, subject, strikes=1, queued_at=in_future(-5))
    assert [job.id for job in claim(sync_session)] == [healthy.id]


def test_an_overdue_job_is_not_claimed(sync_session: Session) -> None:
    make_job(sync_session, deadline_at=in_future(-1))
    assert claim(sync_session) == []


def test_the_queue_position_follows_the_order_of_service(sync_session: Session) -> None:
    greedy, modest = make_subject(sync_session), make_subject(sync_session)
    backlog = [make_job(sync_session, greedy, queued_at=in_future(n - 100)) for n in range(3)]
    late = make_job(sync_session, modest, queued_at=in_future(-1))
    order = sync_session.scalars(queue_order(late.kind, late.base_model)).all()
    assert [order.index(job.id) for job in (*backlog, late)] == [0, 2, 3, 1]


def test_a_late_finish_is_refused(sync_session: Session) -> None:
    job = running(sync_session, lease=-1)
    assert sync_session.scalar(finish_job(job.id, 1, JobStatus.SUCCEEDED, keep=KEEP)) is None
    assert sync_session.scalar(record_progress(job.id, 1, phase=Phase.PREDICTING, step=0, total_steps=1)) is None
    assert sync_session.scalar(release_job(job.id, 1, keep=KEEP)) is None


def test_an_earlier_attempt_can_do_nothing(sync_session: Session) -> None:
    job = running(sync_session, attempt=2)
    assert sync_session.scalar(finish_job(job.id, 1, JobStatus.SUCCEEDED, keep=KEEP)) is None
    assert sync_session.scalar(renew_lease(job.id, 1, lease=LEASE)) is None
    assert sync_session.scalar(finish_job(job.id, 2, JobStatus.SUCCEEDED, keep=KEEP)) is not None


def test_a_lease_can_be_renewed_until_somebody_judges(sync_session: Session) -> None:
    job = running(sync_session, lease=-1)
    assert sync_session.scalar(renew_lease(job.id, 1, lease=LEASE)) is False
    assert list(sync_session.scalars(requeue_lost_jobs(RULES))) == []
    assert sync_session.scalar(finish_job(job.id, 1, JobStatus.SUCCEEDED, keep=KEEP)) is not None


def test_a_finished_job_keeps_its_outcome_and_its_timings(sync_session: Session) -> None:
    job = running(sync_session)
    for phase in (Phase.VALIDATING, Phase.PREDICTING):
        sync_session.scalar(record_progress(job.id, 1, phase=phase, step=0, total_steps=1))
    done = sync_session.scalar(finish_job(job.id, 1, JobStatus.FAILED, error=ERROR, keep=KEEP))
    assert done is not None
    assert (done.status, done.error, done.phase, done.lease_expires_at) == (JobStatus.FAILED, ERROR, None, None)
    assert done.timings.keys() == {"validating", "predicting"}
    assert all(seconds >= 0 for seconds in done.timings.values())
    assert done.finished_at is not None
    assert done.expires_at is not None


def test_progress_tells_whether_to_cancel(sync_session: Session) -> None:
    job = running(sync_session)
    progress = record_progress(job.id, 1, phase=Phase.FINETUNING, step=3, total_steps=40)
    assert sync_session.scalar(progress) is False
    sync_session.execute(cancel_job(job.id, keep=KEEP))
    assert sync_session.scalar(progress) is True
    assert sync_session.scalar(renew_lease(job.id, 1, lease=LEASE)) is True


def test_every_phase_is_an_event_and_steps_are_none(sync_session: Session) -> None:
    job = make_job(sync_session)
    claim(sync_session)
    for phase, step in ((Phase.PREDICTING, 0), (Phase.FINETUNING, 1), (Phase.FINETUNING, 2)):
        sync_session.scalar(record_progress(job.id, 1, phase=phase, step=step, total_steps=2))
    sync_session.scalar(finish_job(job.id, 1, JobStatus.SUCCEEDED, keep=KEEP))
    assert events(sync_session, job) == [
        (1, JobStatus.QUEUED, None),
        (2, JobStatus.RUNNING, None),
        (3, JobStatus.RUNNING, Phase.PREDICTING),
        (4, JobStatus.RUNNING, Phase.FINETUNING),
        (5, JobStatus.SUCCEEDED, None),
    ]


def test_a_released_job_waits_again_without_a_strike(sync_session: Session) -> None:
    job = running(sync_session, step=3, total_steps=40, rung_at=in_future(-1))
    released = sync_session.scalar(release_job(job.id, 1, keep=KEEP))
    assert released is not None
    sync_session.refresh(released)
    assert (released.finished_at, released.expires_at) == (None, None)
    assert (released.status, released.strikes, released.attempt) == (JobStatus.QUEUED, 0, 1)
    assert (released.step, released.total_steps, released.rung_at) == (0, 0, None)


@pytest.mark.parametrize("status", sorted(FINAL))
def test_a_final_status_is_final(sync_session: Session, status: JobStatus) -> None:
    job = make_job(sync_session, status=status)
    assert sync_session.scalar(cancel_job(job.id, keep=KEEP)) is None
    with pytest.raises(IntegrityError, match="cannot become"):
        sync_session.execute(text("UPDATE jobs SET status = 'queued' WHERE id = :id"), {"id": job.id})


def test_a_queued_job_is_cancelled_on_the_spot_and_a_running_one_is_asked(sync_session: Session) -> None:
    waiting, busy = make_job(sync_session), running(sync_session)
    canceled = sync_session.scalar(cancel_job(waiting.id, keep=KEEP))
    asked = sync_session.scalar(cancel_job(busy.id, keep=KEEP))
    assert canceled is not None
    assert asked is not None
    assert (canceled.status, asked.status) == (JobStatus.CANCELED, JobStatus.RUNNING)
    assert asked.cancel_requested
    assert canceled.finished_at is not None
    assert canceled.expires_at is not None
    assert (asked.finished_at, asked.expires_at) == (None, None)


def test_an_erasure_cancels_all_but_erasures(sync_session: Session) -> None:
    subject = make_subject(sync_session)
    waiting, busy = make_job(sync_session, subject), running(sync_session, subject)
    erasures = make_job(sync_session, subject, kind=JobKind.ERASE), running(sync_session, subject, kind=JobKind.ERASE)
    stranger = make_job(sync_session)
    canceled = {job.id: job.status for job in sync_session.scalars(cancel_jobs_of(subject.id, keep=KEEP))}
    assert canceled == {waiting.id: JobStatus.CANCELED, busy.id: JobStatus.RUNNING}
    for other in (*erasures, stranger):
        sync_session.refresh(other)
        assert not other.cancel_requested


@pytest.mark.parametrize("kind", [JobKind.ERASE, JobKind.PERSONALIZE])
def test_an_erasure_that_failed_queues_up_behind_all_others(sync_session: Session, kind: JobKind) -> None:
    job, other = running(sync_session, kind=kind, queued_at=in_future(-9)), make_job(sync_session, kind=kind)
    sync_session.execute(update(Job).where(Job.id == other.id).values(queued_at=in_future(-5)))
    sync_session.execute(release_job(job.id, 1, error=ERROR, keep=KEEP))
    order = sync_session.scalars(queue_order(kind, BASE_MODEL)).all()
    assert order == ([other.id, job.id] if kind is JobKind.ERASE else [job.id, other.id])


def test_a_released_job_that_was_to_be_cancelled_is(sync_session: Session) -> None:
    job = running(sync_session, cancel_requested=True)
    sync_session.execute(release_job(job.id, 1, error=ERROR, keep=KEEP))
    sync_session.refresh(job)
    assert (job.status, job.error) == (JobStatus.CANCELED, None)
    assert job.finished_at is not None
    assert job.expires_at is not None


def test_a_lost_job_goes_back_with_a_strike(sync_session: Session) -> None:
    lost, healthy = running(sync_session, lease=-1), running(sync_session)
    (requeued,) = sync_session.scalars(requeue_lost_jobs(RULES))
    assert (requeued.id, requeued.status, requeued.strikes) == (lost.id, JobStatus.QUEUED, 1)
    sync_session.refresh(healthy)
    assert healthy.status == JobStatus.RUNNING


def test_outages_of_the_bucket_leave_a_job_its_strikes(sync_session: Session) -> None:
    running(sync_session, lease=-1, attempt=100)
    (requeued,) = sync_session.scalars(requeue_lost_jobs(RULES))
    assert (requeued.status, requeued.strikes) == (JobStatus.QUEUED, 1)


def test_an_erasure_is_never_given_up(sync_session: Session) -> None:
    running(sync_session, lease=-1, kind=JobKind.ERASE, strikes=9, attempt=99)
    assert list(sync_session.scalars(end_lost_jobs(RULES, error=ERROR, keep=KEEP))) == []
    (requeued,) = sync_session.scalars(requeue_lost_jobs(RULES))
    assert requeued.status == JobStatus.QUEUED


def test_a_job_out_of_strikes_fails(sync_session: Session) -> None:
    job = running(sync_session, lease=-1, strikes=2)
    assert list(sync_session.scalars(requeue_lost_jobs(RULES))) == []
    (ended,) = sync_session.scalars(end_lost_jobs(RULES, error=ERROR, keep=KEEP))
    assert (ended.id, ended.status, ended.error) == (job.id, JobStatus.FAILED, ERROR)


def test_a_lost_job_with_strikes_left_is_not_ended(sync_session: Session) -> None:
    running(sync_session, lease=-1)
    assert list(sync_session.scalars(end_lost_jobs(RULES, error=ERROR, keep=KEEP))) == []


def test_a_lost_job_that_was_to_be_cancelled_is(sync_session: Session) -> None:
    running(sync_session, lease=-1, cancel_requested=True)
    assert list(sync_session.scalars(requeue_lost_jobs(RULES))) == []
    (ended,) = sync_session.scalars(end_lost_jobs(RULES, error=ERROR, keep=KEEP))
    assert (ended.status, ended.error) == (JobStatus.CANCELED, None)


def test_nobody_is_judged_in_the_first_lease_after_the_database_started(sync_session: Session) -> None:
    running(sync_session, lease=-1)
    patient = Rules(timedelta(days=1), max_strikes=3)
    assert list(sync_session.scalars(requeue_lost_jobs(patient))) == []


def test_only_waiting_jobs_expire(sync_session: Session) -> None:
    late = make_job(sync_session, deadline_at=in_future(-1))
    make_job(sync_session, deadline_at=in_future(60))
    running(sync_session, deadline_at=in_future(-1))
    (expired,) = sync_session.scalars(expire_overdue_jobs(error=ERROR, keep=KEEP))
    assert (expired.id, expired.status) == (late.id, JobStatus.EXPIRED)


def test_a_bell_is_rung_again_only_after_a_while(sync_session: Session) -> None:
    quiet_for = timedelta(seconds=5)
    make_job(sync_session)  # its first bell has just been rung
    make_job(sync_session, base_model="another", queued_at=in_future(-9), rung_at=in_future(-1))
    make_job(sync_session, base_model="forgotten", queued_at=in_future(-9))
    assert [tuple(row) for row in sync_session.execute(queues_to_ring(quiet_for=quiet_for))] == [
        (JobKind.PERSONALIZE, "forgotten")
    ]
    assert list(sync_session.execute(queues_to_ring(quiet_for=quiet_for))) == []


def test_an_erased_subject_takes_no_adapter(sync_session: Session) -> None:
    subject = make_subject(sync_session, make_account(sync_session))
    first = make_adapter(sync_session, make_job(sync_session, subject))
    subject.erased_at = in_future(0)
    sync_session.flush()
    second = Adapter(id=first.id, subject_id=subject.id)
    assert sync_session.scalar(point_subject_at(second)) is None
    assert sync_session.get_one(Subject, subject.id).adapter_id == first.id
