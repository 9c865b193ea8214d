"""A worker's parts on the real servers, in this process, with an engine that the test controls."""

import threading
from collections.abc import Callable, Sequence
from uuid import UUID

import pytest
from sqlalchemy.orm import Session

from core.database import Sessions
from core.settings import Settings
from core.storage import ObjectStore
from core.tables import Job
from tests.factories import make_job, make_subject, photo_bytes
from tests.fakes import FakeEngine
from worker.attempts import Batches, Limits
from worker.erase import Erasure
from worker.generate import GenerateRequest, Generating, Picture
from worker.ledger import Ledger
from worker.personalize import Personalization, PersonalizeRequest


class Bench:
    """One worker without its process: what `worker.process` would put together."""

    def __init__(self, settings: Settings, sessions: Sessions, store: ObjectStore) -> None:
        self.settings, self.sessions, self.store = settings, sessions, store
        self.engine = FakeEngine()
        self.stopping = threading.Event()
        self.stalled = threading.Event()

    def ledger(self) -> Ledger:
        return Ledger(self.sessions, self.settings, name="bench")

    def limits(self) -> Limits:
        return Limits(self.settings, self.stopping.is_set, self.stopping.wait, self.stalled.set)

    def personalizing(self) -> Batches[PersonalizeRequest, bytes]:
        work = Personalization(self.engine, self.sessions, self.store)
        return Batches(work, self.ledger(), self.limits(), size=self.engine.serves.batch_size)

    def generating(self) -> Batches[GenerateRequest, Sequence[Picture]]:
        work = Generating(self.engine, self.sessions, self.store)
        return Batches(work, self.ledger(), self.limits(), size=self.engine.serves.batch_size)

    def erasing(self) -> Batches[UUID, UUID]:
        return Batches(Erasure(self.sessions, self.store, self.settings), self.ledger(), self.limits(), size=1)

    def submit(self, *, colour: tuple[int, int, int] = (9, 9, 9), keep_photo: bool = False, **fields: object) -> Job:
        """A queued job with its photo in the bucket, as the API leaves it."""
        with self.sessions.begin() as session:
            subject = make_subject(session, keep_photo=keep_photo)
            self.store.put(subject.photo_keys[0], photo_bytes(colour), content_type="image/png")
            return make_job(session, subject, **fields)

    def read(self, job: Job) -> Job:
        """The row as it is now."""
        with self.sessions() as session:
            return session.get_one(Job, job.id)

    def look(self, question: Callable[[Session], object]) -> object:
        with self.sessions() as session:
            return question(session)


@pytest.fixture
def bench(settings: Settings, sync_sessions: Sessions, store: ObjectStore) -> Bench:
    return Bench(settings.model_copy(update={"lease_seconds": 5.0}), sync_sessions, store)
