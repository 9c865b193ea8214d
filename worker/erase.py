"""Jobs of kind `erase`: everything of a subject goes, objects and rows, and a receipt says so."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.orm import Session

from core.database import Sessions
from core.lifecycle import JobKind, Phase
from core.object_keys import subject_prefix
from core.retention import complete_receipt, erase_rows, hide_subject
from core.settings import Settings
from core.statements import cancel_jobs_of
from core.storage import ObjectStore
from core.tables import ErasureReceipt, Job
from worker.attempts import OnStep
from worker.ledger import Record


class Erasure:
    """The work of an `erase` job."""

    kind = JobKind.ERASE

    def __init__(self, sessions: Sessions, store: ObjectStore, settings: Settings) -> None:
        self._sessions, self._store = sessions, store
        self._keep = timedelta(days=settings.job_days)

    def fetch(self, job: Job) -> UUID:
        """Stop whatever else is done with the person, and refuse its results from here on."""
        assert job.subject_id is not None
        with self._sessions.begin() as session:
            session.execute(cancel_jobs_of(job.subject_id, keep=self._keep))
            session.execute(hide_subject(job.subject_id))
        return job.subject_id

    def run(self, inputs: Sequence[UUID], on_step: OnStep) -> Sequence[UUID | Exception]:
        """Nothing to compute."""
        on_step(Phase.STORING, 0, 1)
        return inputs

    def store(self, job: Job, output: UUID) -> Record:
        """Delete the objects first: a row that is gone can't name them any more."""
        objects = self._store.delete_prefix(subject_prefix(output))

        def record(session: Session) -> None:
            for statement in erase_rows(output):
                session.execute(statement)
            if session.scalar(complete_receipt(output, objects=objects)) is None:
                session.add(
                    ErasureReceipt(account_id=job.account_id, subject_id=output, objects=objects, erased_at=func.now())
                )

        return record

    def clean_up(self, job: Job) -> None:
        """Late objects of workers that were busy with the person: the sweeper looks once more."""
