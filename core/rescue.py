"""What the sweeper alone does to jobs: take them from dead workers, end what nobody should try again, ring again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, func, literal, or_, update
from sqlalchemy.sql.dml import ReturningUpdate

from core.lifecycle import NEVER_GIVEN_UP, JobKind, JobStatus
from core.statements import BACK_IN_THE_QUEUE, CANCELED, CLOCK, NOW
from core.tables import Job


@dataclass(frozen=True)
class Rules:
    """When a job is taken from a silent worker, and when it is not tried again."""

    lease: timedelta
    max_strikes: int

    def lease_is_over(self) -> ColumnElement[bool]:
        """A worker fell silent. In the first lease after the database's start nobody is judged: nobody could renew."""
        return (
            (Job.status == JobStatus.RUNNING)
            & (Job.lease_expires_at < CLOCK)
            & (func.pg_postmaster_start_time() < CLOCK - self.lease)
        )

    def allow_another(self) -> ColumnElement[bool]:
        """Its caller still wants it, and it hasn't cost enough workers to be the cause."""
        return Job.kind.in_(NEVER_GIVEN_UP) | ((Job.strikes + 1 < self.max_strikes) & ~Job.cancel_requested)


def requeue_lost_jobs(rules: Rules) -> ReturningUpdate[Job]:
    """Back to the queue, with a strike, whatever a dead worker held. Only the sweeper runs this."""
    return (
        update(Job)
        .where(rules.lease_is_over(), rules.allow_another())
        .values(**BACK_IN_THE_QUEUE, strikes=Job.strikes + 1)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


def end_lost_jobs(rules: Rules, *, error: Mapping[str, Any], keep: timedelta) -> ReturningUpdate[Job]:
    """What a dead worker held and nobody should try again: cancelled by its caller, or out of strikes."""
    return (
        update(Job)
        .where(rules.lease_is_over(), ~rules.allow_another())
        .values(
            status=case(
                (Job.cancel_requested, CANCELED),
                else_=literal(JobStatus.FAILED, Job.status.type),
            ),
            error=case((Job.cancel_requested, None), else_=literal(error, Job.error.type)),
            strikes=Job.strikes + 1,
            phase=None,
            lease_expires_at=None,
            finished_at=NOW,
            expires_at=NOW + keep,
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


def expire_overdue_jobs(*, error: Mapping[str, Any], keep: timedelta) -> ReturningUpdate[Job]:
    """End what waited past its caller's deadline. Running jobs may finish."""
    return (
        update(Job)
        .where(Job.status == JobStatus.QUEUED, Job.deadline_at < NOW)
        .values(status=JobStatus.EXPIRED, error=error, finished_at=NOW, expires_at=NOW + keep)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


def queues_to_ring(*, quiet_for: timedelta) -> ReturningUpdate[JobKind, str]:
    """Queues with a job whose bell is `quiet_for` old or never rang; marks them rung."""
    silent = or_(Job.rung_at.is_(None), Job.rung_at < NOW - quiet_for)
    old_enough = Job.queued_at < NOW - quiet_for
    return (
        update(Job)
        .where(Job.status == JobStatus.QUEUED, silent, old_enough)
        .values(rung_at=NOW)
        .returning(Job.kind, Job.base_model)
        .execution_options(synchronize_session=False)
    )
