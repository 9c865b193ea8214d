"""What a worker does to a job's rows and objects, for tests of what callers then see."""

import hashlib
from datetime import timedelta
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from core.ids import new_id
from core.lifecycle import JobKind, JobStatus, Phase
from core.object_keys import adapter_key, export_key, picture_key
from core.statements import add_images, claim_jobs, finish_job, record_progress
from core.storage import ObjectStore
from core.tables import Export, Generation, Job
from tests.factories import make_adapter

LEASE, KEEP = timedelta(seconds=60), timedelta(days=1)
WEIGHTS = bytes(range(256)) * 4


def claim(db: Session, kind: JobKind = JobKind.PERSONALIZE) -> Job:
    """Take the one job that waits."""
    job = db.scalars(claim_jobs(kind, "mini", limit=1, lease=LEASE, worker="test")).one()
    db.commit()
    return job


def progress(db: Session, job: Job, phase: Phase, step: int = 0, total_steps: int = 0) -> None:
    """Say where the attempt stands."""
    db.execute(record_progress(job.id, job.attempt, phase=phase, step=step, total_steps=total_steps))
    db.commit()


def finish(db: Session, job: Job, status: JobStatus = JobStatus.SUCCEEDED, **fields: Any) -> None:  # noqa: ANN401 - `finish_job`'s own
    """End the attempt."""
    assert db.scalars(finish_job(job.id, job.attempt, status, keep=KEEP, **fields)).one()
    db.commit()


def personalize(db: Session, store: ObjectStore, weights: bytes = WEIGHTS) -> Job:
    """Run the waiting job to its end: weights in the bucket, the subject's pointer flipped."""
    job = claim(db)
    assert job.subject_id is not None
    key = adapter_key(job.subject_id, job.id, job.attempt)
    store.put(key, weights, content_type="application/octet-stream")
    sha256 = hashlib.sha256(weights).hexdigest()
    make_adapter(db, job, attempt=job.attempt, object_key=key, sha256=sha256, size=len(weights))
    finish(db, job)
    return job


def draw(db: Session, store: ObjectStore, content: bytes) -> Job:
    """Run the waiting generation to its end: every picture is `content`."""
    job = claim(db, JobKind.GENERATE)
    assert job.subject_id is not None
    generation = db.query(Generation).filter_by(job_id=job.id).one()
    for position, picture in enumerate(job.params["pictures"]):
        key = picture_key(job.subject_id, generation.id, job.attempt, position)
        store.put(key, content, content_type="image/png")
        shape = {"width": 64, "height": 64, "size": len(content), "verdict": "ok", "object_key": key}
        db.execute(
            add_images([{"id": new_id(), "generation_id": generation.id, "position": position} | shape | picture])
        )
    finish(db, job)
    return job


def fold(db: Session, store: ObjectStore, content: bytes) -> Job:
    """Run the waiting export to its end: its file is `content`."""
    job = claim(db, JobKind.EXPORT)
    assert job.subject_id is not None
    key = export_key(job.subject_id, job.id, job.attempt)
    store.put(key, content, content_type="application/octet-stream")
    made = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "object_key": key}
    db.add(Export(subject_id=job.subject_id, **job.params, **made, expires_at=func.now() + KEEP))
    finish(db, job)
    return job
