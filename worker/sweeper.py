"""Every few seconds: expire, requeue, ring again, delete what is due. Statements are guarded, so twice is once."""

import socket
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import structlog
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from core import retention
from core.database import Sessions
from core.errors import FailureCode
from core.lifecycle import JobKind, WorkerRole
from core.object_keys import generation_prefix, subject_prefix, upload_key
from core.rescue import Rules, end_lost_jobs, expire_overdue_jobs, queues_to_ring, requeue_lost_jobs
from core.settings import Settings
from core.statements import report_alive
from core.storage import ObjectStore, StorageUnavailable
from worker.failures import Failure
from worker.leftovers import Leftovers
from worker.orphans import PLACES, Orphans
from worker.personalize import delete_photos
from worker.presence import State

FORGET_WORKERS_AFTER = timedelta(days=1)
# After an erasure, a worker that was busy with the person may still write for as long as a job may run.
LEASES_BEFORE_VERIFYING = 2

WORKER_LOST = Failure(code=FailureCode.WORKER_LOST, detail="The worker died with this job, again and again")
DEADLINE_PASSED = Failure(code=FailureCode.DEADLINE_PASSED, detail="The deadline passed before a worker was free")

log = structlog.get_logger()
Ring = Callable[[JobKind, str, int], None]


class Sweeper:
    """Keeps every promise about time: a job is never lost, and nothing is kept for longer than was said."""

    def __init__(self, sessions: Sessions, store: ObjectStore, settings: Settings, *, ring: Ring) -> None:
        self._sessions, self._store, self._settings = sessions, store, settings
        self._name, self._ring = f"housekeeping@{socket.gethostname()}", ring
        self._keep = timedelta(days=settings.job_days)
        self._may_judge_at = 0.0
        self._orphans = [Orphans(sessions, store, place) for place in PLACES]
        self._leftovers = Leftovers(sessions, store, settings)

    def sweep(self) -> None:
        """Every step, whatever becomes of the others."""
        steps = (
            self._report,
            self._expire,
            self._judge,
            self._ring_again,
            self._delete_rows,
            self._delete_photos,
            self._delete_uploads,
            self._delete_exports,
            self._delete_generations,
            self._delete_orphans,
            self._delete_leftovers,
            self._verify_erasures,
        )
        for step in steps:
            try:
                step()
            except OperationalError as error:
                # Workers could not renew their leases either: they get a whole one before anyone is judged.
                self._may_judge_at = time.monotonic() + self._settings.lease_seconds
                log.warning("sweep.blind", error=str(error))
                return
            except (SQLAlchemyError, StorageUnavailable) as error:
                log.warning("sweep.step_failed", step=step.__name__, error=str(error))

    def _report(self) -> None:
        with self._sessions.begin() as session:
            session.execute(report_alive(self._name, WorkerRole.HOUSEKEEPING, state=State.READY))

    def _expire(self) -> None:
        statement = expire_overdue_jobs(error=DEADLINE_PASSED.to_json(), keep=self._keep)
        with self._sessions.begin() as session:
            expired = session.scalars(statement).all()
        for job in expired:
            log.info("job.expired", job_id=str(job.id))

    def _judge(self) -> None:
        """Take jobs from workers that fell silent."""
        if time.monotonic() < self._may_judge_at:
            return
        settings, error = self._settings, WORKER_LOST.to_json()
        rules = Rules(settings.lease, settings.max_strikes)
        with self._sessions.begin() as session:
            requeued = session.scalars(requeue_lost_jobs(rules)).all()
            ended = session.scalars(end_lost_jobs(rules, error=error, keep=self._keep)).all()
        for job in (*requeued, *ended):
            log.warning("job.lost", job_id=str(job.id), worker=job.worker, strikes=job.strikes, status=job.status)

    def _ring_again(self) -> None:
        with self._sessions.begin() as session:
            silent = session.execute(queues_to_ring(quiet_for=timedelta(seconds=self._settings.sweep_seconds))).all()
        for (kind, base_model), jobs in Counter((kind, base_model) for kind, base_model in silent).items():
            log.info("queue.rung", kind=kind, base_model=base_model, jobs=jobs)
            self._ring(kind, base_model, jobs)

    def _delete_rows(self) -> None:
        with self._sessions.begin() as session:
            session.execute(retention.delete_old_jobs())
            session.execute(retention.delete_old_idempotency_records())
            session.execute(retention.delete_expired_tokens())
            session.execute(retention.delete_old_deliveries(older_than=self._keep))
            session.execute(retention.delete_silent_workers(silent_for=FORGET_WORKERS_AFTER))

    def _delete_photos(self) -> None:
        delete_photos(self._sessions, self._store)

    def _delete_uploads(self) -> None:
        with self._sessions() as session:
            due = session.scalars(retention.uploads_due()).all()
        for upload_id in due:
            self._store.delete(upload_key(upload_id))
            with self._sessions.begin() as session:
                session.execute(retention.delete_upload(upload_id))

    def _delete_exports(self) -> None:
        with self._sessions() as session:
            due = session.scalars(retention.exports_due()).all()
        for export in due:
            self._store.delete(export.object_key)
            with self._sessions.begin() as session:
                session.execute(retention.delete_export(export.id))

    def _delete_generations(self) -> None:
        with self._sessions() as session:
            due = session.scalars(retention.generations_due()).all()
        for generation in due:
            self._store.delete_prefix(generation_prefix(generation.subject_id, generation.id))
            with self._sessions.begin() as session:
                for statement in retention.delete_generation(generation.id):
                    session.execute(statement)

    def _delete_orphans(self) -> None:
        for orphans in self._orphans:
            orphans.delete_some()

    def _delete_leftovers(self) -> None:
        self._leftovers.delete_some()

    def _verify_erasures(self) -> None:
        after = timedelta(seconds=self._settings.max_running_seconds) + LEASES_BEFORE_VERIFYING * self._settings.lease
        with self._sessions() as session:
            due = session.scalars(retention.receipts_to_verify(after=after)).all()
        for receipt in due:
            late = self._store.delete_prefix(subject_prefix(receipt.subject_id))
            with self._sessions.begin() as session:
                session.execute(retention.verify_receipt(receipt.id, objects=late))
