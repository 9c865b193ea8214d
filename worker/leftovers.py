"""What an attempt put into the bucket and never recorded: its worker died, or lost the job, between the two."""

from sqlalchemy import select

from core.database import Sessions
from core.lifecycle import JobKind
from core.object_keys import attempts_prefix
from core.storage import ObjectStore
from core.tables import Adapter, Export, Job

KEPT_IN = {JobKind.PERSONALIZE: Adapter.object_key, JobKind.EXPORT: Export.object_key}


def delete_leftovers(job: Job, sessions: Sessions, store: ObjectStore) -> int:
    """Delete a job's files but for the one that has a row; returns how many. Only of a job that has ended."""
    column = KEPT_IN.get(job.kind)
    if column is None or job.subject_id is None:
        return 0  # pictures go with their generation, whichever attempt drew them
    keys = list(store.keys(attempts_prefix(job.kind, job.subject_id, job.id)))
    with sessions() as session:
        recorded = set(session.scalars(select(column).where(column.in_(keys))))
    leftovers = [key for key in keys if key not in recorded]
    for key in leftovers:
        store.delete(key)
    return len(leftovers)
