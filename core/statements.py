"""Every statement that moves a job, as a value: the async API and the sync worker share them, each can be tested alone.

A job moves by a guarded UPDATE whose returned row decides, on the database's clock
(docs/decisions/0001-statements-as-values.md).
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Delete,
    Select,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.postgresql.dml import Insert
from sqlalchemy.orm import aliased
from sqlalchemy.sql.dml import ReturningUpdate

from core.lifecycle import NEVER_GIVEN_UP, JobKind, JobStatus, Phase, WorkerRole
from core.promises import usual_time
from core.tables import Adapter, GeneratedImage, Job, Subject, WorkerProcess

NOW = func.now()
# The wall clock, not the transaction's start: a lease counts from the moment it is written.
CLOCK = func.clock_timestamp()
CANCELED = literal(JobStatus.CANCELED, Job.status.type)


def claim_jobs(kind: JobKind, base_model: str, *, limit: int, lease: timedelta, worker: str) -> ReturningUpdate[Job]:
    """Take up to `limit` queued jobs as one batch. No rows back means there is nothing to do.

    Accounts take turns, then age decides. A job with a strike is claimed alone: a poison photo takes nobody along.
    Window functions don't go with FOR UPDATE, so the candidates are ranked first, then locked and checked again.
    """
    ranked = _ranked_candidates(kind, base_model)
    first = (
        select(ranked.c.id, ranked.c.strikes)
        .order_by(ranked.c.turn, ranked.c.queued_at, ranked.c.id)
        .limit(1)
        .cte("first")
    )
    candidate = aliased(Job)
    locked = (
        select(candidate.id)
        .join(ranked, ranked.c.id == candidate.id)
        .join(first, literal(value=True))
        .where(
            candidate.status == JobStatus.QUEUED,
            case((first.c.strikes > 0, candidate.id == first.c.id), else_=candidate.strikes == 0),
        )
        .order_by(ranked.c.turn, ranked.c.queued_at, ranked.c.id)
        .limit(limit)
        .with_for_update(of=candidate, skip_locked=True)
        .cte("locked")
    )
    return (
        update(Job)
        .where(Job.id.in_(select(locked.c.id)), Job.status == JobStatus.QUEUED)
        .values(
            status=JobStatus.RUNNING,
            attempt=Job.attempt + 1,
            worker=worker,
            lease_expires_at=CLOCK + lease,
            started_at=func.coalesce(Job.started_at, NOW),
            start_promised_at=func.coalesce(Job.start_promised_at, CLOCK + usual_time(kind, base_model)),
            phase=None,
            phase_at=NOW,
            step=0,
            total_steps=0,
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


def _ranked_candidates(kind: JobKind, base_model: str) -> CTE:
    """The queue as it is served: each account's n-th job after every account's (n-1)-th, running ones counted."""
    running = (
        select(Job.account_id, func.count().label("jobs"))
        .where(Job.status == JobStatus.RUNNING, Job.kind == kind, Job.base_model == base_model)
        .group_by(Job.account_id)
        .subquery()
    )
    nth = func.row_number().over(partition_by=Job.account_id, order_by=(Job.queued_at, Job.id))
    return (
        select(Job.id, Job.queued_at, Job.strikes, (nth + func.coalesce(running.c.jobs, 0)).label("turn"))
        .outerjoin(running, running.c.account_id == Job.account_id)
        .where(
            Job.status == JobStatus.QUEUED,
            Job.kind == kind,
            Job.base_model == base_model,
            or_(Job.deadline_at.is_(None), Job.deadline_at > NOW),
        )
        .cte("ranked")
    )


def queue_order(kind: JobKind, base_model: str) -> Select[UUID]:
    """The ids of all queued jobs, in the order in which they are served."""
    ranked = _ranked_candidates(kind, base_model)
    return select(ranked.c.id).order_by(ranked.c.turn, ranked.c.queued_at, ranked.c.id)


def held(job_id: UUID, attempt: int) -> ColumnElement[bool]:
    """The job is still this attempt's: running, same number, lease not over."""
    return (
        (Job.id == job_id)
        & (Job.attempt == attempt)
        & (Job.status == JobStatus.RUNNING)
        & (Job.lease_expires_at > CLOCK)
    )


def renew_lease(job_id: UUID, attempt: int, *, lease: timedelta) -> ReturningUpdate[bool]:
    """Keep the job; returns whether the caller asked to cancel. No row back means somebody took it.

    A lease that is over can be renewed until the sweeper judges, which waits after an outage of the database.
    """
    return (
        update(Job)
        .where(Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.RUNNING)
        .values(lease_expires_at=CLOCK + lease)
        .returning(Job.cancel_requested)
        .execution_options(synchronize_session=False)
    )


def record_progress(job_id: UUID, attempt: int, *, phase: Phase, step: int, total_steps: int) -> ReturningUpdate[bool]:
    """Write where the attempt stands; returns whether to cancel. No row back means the lease was lost."""
    entered = Job.phase.is_distinct_from(phase)
    return (
        update(Job)
        .where(held(job_id, attempt))
        .values(
            phase=phase,
            step=step,
            total_steps=total_steps,
            phase_at=case((entered, CLOCK), else_=Job.phase_at),
            timings=case((entered, _timings_so_far()), else_=Job.timings),
        )
        .returning(Job.cancel_requested)
        .execution_options(synchronize_session=False)
    )


def _timings_so_far() -> ColumnElement[Any]:
    """The seconds of the phase that ends now, added to the others'."""
    seconds = func.round(func.extract("epoch", CLOCK - Job.phase_at), 3)
    return case(
        (Job.phase.is_(None), Job.timings),
        else_=Job.timings.op("||")(func.jsonb_build_object(Job.phase, seconds)),
    )


def finish_job(
    job_id: UUID, attempt: int, status: JobStatus, *, error: Mapping[str, Any] | None = None, keep: timedelta
) -> ReturningUpdate[Job]:
    """Record the outcome of an attempt. No row back means the attempt lost its lease."""
    return (
        update(Job)
        .where(held(job_id, attempt))
        .values(
            status=status,
            phase=None,
            error=error,
            timings=_timings_so_far(),
            finished_at=NOW,
            expires_at=NOW + keep,
            lease_expires_at=None,
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


def release_job(
    job_id: UUID, attempt: int, *, error: Mapping[str, Any] | None = None, keep: timedelta
) -> ReturningUpdate[Job]:
    """Hand a job back to the queue: a deploy, or a failure that another attempt may not meet. No strike.

    One that its caller has cancelled meanwhile ends here. What is tried for ever queues up behind all others after a
    failure: they must not wait for it.
    """
    canceled = Job.cancel_requested
    may_fail_for_ever = Job.kind.in_(NEVER_GIVEN_UP) & literal(error is not None)
    return (
        update(Job)
        .where(held(job_id, attempt))
        .values(
            BACK_IN_THE_QUEUE
            | {
                "status": case((canceled, CANCELED), else_=literal(JobStatus.QUEUED, Job.status.type)),
                "error": case((canceled, None), else_=literal(error, Job.error.type)),
                "finished_at": case((canceled, NOW)),
                "expires_at": case((canceled, NOW + keep)),
                "queued_at": case((may_fail_for_ever, NOW), else_=Job.queued_at),
            }
        )
        .returning(Job)
        .execution_options(synchronize_session=False)
    )


BACK_IN_THE_QUEUE: dict[str, Any] = {
    "status": JobStatus.QUEUED,
    "phase": None,
    "step": 0,
    "total_steps": 0,
    "lease_expires_at": None,
    "rung_at": None,
    "timings": {},
}


def cancel_job(job_id: UUID, *, keep: timedelta) -> ReturningUpdate[Job]:
    """End what nobody has yet; a worker that has it looks at this between steps. No row back: it has ended."""
    return _cancel(Job.id == job_id, keep)


def cancel_jobs_of(subject_id: UUID, *, keep: timedelta) -> ReturningUpdate[Job]:
    """The subject is being erased: nothing else is done for it any more."""
    return _cancel((Job.subject_id == subject_id) & (Job.kind != JobKind.ERASE), keep)


def _cancel(which: ColumnElement[bool], keep: timedelta) -> ReturningUpdate[Job]:
    """One statement for both states: between two, a job could go from one to the other."""
    waits = Job.status == JobStatus.QUEUED
    return (
        update(Job)
        .where(which, Job.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]))
        .values(
            status=case((waits, CANCELED), else_=Job.status),
            cancel_requested=True,
            finished_at=case((waits, NOW), else_=Job.finished_at),
            expires_at=case((waits, NOW + keep), else_=Job.expires_at),
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


def point_subject_at(adapter: Adapter) -> ReturningUpdate[UUID]:
    """Flip the subject's pointer. No row back means the subject was erased meanwhile."""
    return (
        update(Subject)
        .where(Subject.id == adapter.subject_id, Subject.erased_at.is_(None))
        .values(adapter_id=adapter.id)
        .returning(Subject.id)
        .execution_options(synchronize_session=False)
    )


def add_images(rows: Sequence[Mapping[str, Any]]) -> Insert:
    """Record a generation's pictures."""
    return insert(GeneratedImage).values(rows)


def report_alive(  # noqa: PLR0913 - a column each
    name: str,
    role: WorkerRole,
    *,
    state: str,
    base_model: str | None = None,
    base_model_hash: str | None = None,
    has_hypernetwork: bool = False,
    batch_size: int = 1,
) -> Insert:
    """A process says what it serves, how much of it at once, and how it is."""
    said = {
        "role": role,
        "base_model": base_model,
        "base_model_hash": base_model_hash,
        "has_hypernetwork": has_hypernetwork,
        "batch_size": batch_size,
        "state": state,
        "seen_at": CLOCK,
    }
    return insert(WorkerProcess).values(name=name, **said).on_conflict_do_update(index_elements=["name"], set_=said)


def live_workers(*, within: timedelta) -> Select[WorkerProcess]:
    """The processes heard of lately."""
    return select(WorkerProcess).where(WorkerProcess.seen_at > NOW - within)


def report_gone(name: str) -> Delete:
    """The process ended in good order."""
    return delete(WorkerProcess).where(WorkerProcess.name == name)


def one_at_a_time(what: str) -> Select[bool]:
    """Whether nobody else does this now; holds until the transaction's end."""
    return select(func.pg_try_advisory_xact_lock(func.hashtext(what)))
