"""What recent jobs tell about the next one, and what was promised for it: statements as values, as others are."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import ScalarSelect, Select, Update, func, select, update

from core.lifecycle import JobKind, JobStatus
from core.tables import Job

# The wall clock, not the transaction's start.
CLOCK = func.clock_timestamp()
# So many show how long a job takes.
RECENT_JOBS = 20


def recently_succeeded() -> Select[Job]:
    """The jobs that ended well, last first."""
    ended = (Job.status == JobStatus.SUCCEEDED) & Job.expires_at.is_not(None)
    return select(Job).where(ended).order_by(Job.expires_at.desc())


def usual_time(kind: JobKind, base_model: str) -> ScalarSelect[timedelta]:
    """From start to end, the median of recent jobs; NULL before the first has ended."""
    alike = (Job.kind == kind) & (Job.base_model == base_model)
    recent = recently_succeeded().where(alike).limit(RECENT_JOBS).subquery()
    took = recent.c.finished_at - recent.c.started_at
    return select(func.percentile_cont(0.5).within_group(took)).scalar_subquery()


def promise_end(job_id: UUID, *, seconds: float) -> Update:
    """Remember the first ETA. In the transaction that makes the job: a row that is being written is never claimed."""
    return (
        update(Job)
        .where(Job.id == job_id, Job.promised_at.is_(None), Job.finished_at.is_(None))
        .values(promised_at=CLOCK + timedelta(seconds=seconds))
        .execution_options(synchronize_session=False)
    )
