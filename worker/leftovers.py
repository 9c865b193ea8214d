"""What an attempt put into the bucket and never recorded: its worker died, or lost the job, between the two."""

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import Select, or_, select, tuple_

from core.database import Sessions
from core.lifecycle import FINAL, JobKind, JobStatus
from core.object_keys import attempts_prefix
from core.settings import Settings
from core.storage import ObjectStore
from core.tables import Adapter, Export, Job

# Pictures are not among them: they go with their generation, whichever attempt drew them.
KEPT_IN = {JobKind.PERSONALIZE: Adapter.object_key, JobKind.EXPORT: Export.object_key}
LEASES = 2  # beyond the longest run: so late a worker that had lost its job may still put a file
# How far a process that has just started looks back; the one before it has seen what is older.
LOOK_BACK = timedelta(days=7)
EVERY_SECONDS = 300.0
AT_ONCE = 500

log = structlog.get_logger()


class Leftovers:
    """Finds and deletes files of jobs that have ended, but for those that have a row."""

    def __init__(self, sessions: Sessions, store: ObjectStore, settings: Settings) -> None:
        self._sessions, self._store = sessions, store
        self._wait = timedelta(seconds=settings.max_running_seconds) + LEASES * settings.lease
        self._seen = (datetime.now(UTC) - self._wait - LOOK_BACK, UUID(int=0))
        self._next_look = 0.0

    def delete_some(self) -> int:
        """Look at the jobs that ended next, if it is time; returns how many files went."""
        if time.monotonic() < self._next_look:
            return 0
        until = datetime.now(UTC) - self._wait
        with self._sessions() as session:
            jobs = session.scalars(ended_jobs(self._seen, until)).all()
        deleted = sum(self._delete(job) for job in jobs)
        if len(jobs) < AT_ONCE:
            self._seen, self._next_look = (until, UUID(int=0)), time.monotonic() + EVERY_SECONDS
        else:
            self._seen = (jobs[-1].finished_at or until, jobs[-1].id)
        return deleted

    def _delete(self, job: Job) -> int:
        column = KEPT_IN[job.kind]
        assert job.subject_id is not None
        keys = list(self._store.keys(attempts_prefix(job.kind, job.subject_id, job.id)))
        with self._sessions() as session:
            recorded = set(session.scalars(select(column).where(column.in_(keys))))
        leftovers = [key for key in keys if key not in recorded]
        for key in leftovers:
            self._store.delete(key)
        if leftovers:
            log.warning("leftovers.deleted", job_id=str(job.id), objects=len(leftovers))
        return len(leftovers)


def ended_jobs(after: tuple[datetime, UUID], until: datetime) -> Select[Job]:
    """Those that may have files of more attempts than the one that succeeded."""
    tried = (Job.attempt > 0) & or_(Job.attempt > 1, Job.status != JobStatus.SUCCEEDED)
    return (
        select(Job)
        .where(Job.kind.in_(KEPT_IN), Job.status.in_(FINAL), tried, Job.subject_id.is_not(None))
        .where(tuple_(Job.finished_at, Job.id) > after, Job.finished_at < until)
        .order_by(Job.finished_at, Job.id)  # many end in one transaction, at one time
        .limit(AT_ONCE)
    )
