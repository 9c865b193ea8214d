"""Jobs of kind `personalize`: photos' bytes in, an adapter's bytes out, for a batch of subjects. No torch here."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from PIL import Image
from sqlalchemy.orm import Session

from core.database import Sessions
from core.ids import new_id
from core.lifecycle import JobKind
from core.object_keys import adapter_key
from core.retention import forget_photos, photos_due
from core.schemas import Method, PersonalizeParams
from core.statements import point_subject_at
from core.storage import ObjectMissing, ObjectStore
from core.tables import Adapter, Job, Subject
from worker.attempts import OnStep
from worker.failures import SubjectErased
from worker.ledger import Record

ADAPTER_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class PersonalizeRequest:
    """What one subject's adapter is made from."""

    photos: tuple[Image.Image, ...]
    seed: int
    method: Method


class Personalizer(Protocol):
    """What this work asks of an engine."""

    def personalize(self, requests: Sequence[PersonalizeRequest], on_step: OnStep) -> Sequence[bytes | Exception]:
        """An adapter file or an error for each, in order."""


class Personalization:
    """The work of a `personalize` job."""

    kind = JobKind.PERSONALIZE

    def __init__(self, engine: Personalizer, sessions: Sessions, store: ObjectStore) -> None:
        self._engine, self._sessions, self._store = engine, sessions, store

    def fetch(self, job: Job) -> PersonalizeRequest:
        """The subject's photos. The API has decoded and re-encoded them, so that is what they are."""
        with self._sessions() as session:
            subject = session.get_one(Subject, job.subject_id)
        if subject.erased_at is not None:
            raise SubjectErased
        if not subject.photo_keys:
            raise ObjectMissing("the photos were deleted")
        photos = tuple(opened(self._store.get(key)) for key in subject.photo_keys)
        return PersonalizeRequest(photos, job.seed, PersonalizeParams.model_validate(job.params).method)

    def run(self, inputs: Sequence[PersonalizeRequest], on_step: OnStep) -> Sequence[bytes | Exception]:
        """The engine's part."""
        return self._engine.personalize(inputs, on_step)

    def store(self, job: Job, output: bytes) -> Record:
        """The file under a key of this attempt's own; then the row, and the subject's pointer to it."""
        assert job.subject_id is not None
        key = adapter_key(job.subject_id, job.id, job.attempt)
        self._store.put(key, output, content_type=ADAPTER_TYPE)
        adapter = Adapter(
            id=new_id(),
            subject_id=job.subject_id,
            job_id=job.id,
            attempt=job.attempt,
            object_key=key,
            sha256=hashlib.sha256(output).hexdigest(),
            size=len(output),
        )

        def record(session: Session) -> None:
            session.add(adapter)
            session.flush()
            if session.scalar(point_subject_at(adapter)) is None:
                raise SubjectErased

        return record

    def clean_up(self, job: Job) -> None:
        """The selfies go as soon as their job has ended, unless the caller asked to keep them."""
        assert job.subject_id is not None
        delete_photos(self._sessions, self._store, subject_id=job.subject_id)


def opened(content: bytes) -> Image.Image:
    """A stored photo."""
    photo = Image.open(io.BytesIO(content))
    photo.load()
    return photo


def delete_photos(sessions: Sessions, store: ObjectStore, *, subject_id: UUID | None = None) -> int:
    """Delete the photos that no job needs and nobody asked to keep: of one subject, or of all."""
    with sessions() as session:
        due = session.execute(photos_due(subject_id)).all()
    for owner, keys in due:
        for key in keys:
            store.delete(key)
        with sessions.begin() as session:
            session.execute(forget_photos(owner))
    return len(due)
