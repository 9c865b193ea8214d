"""Weights of the erased go, and old ones, whether or not the database answers."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.orm import sessionmaker

from core.database import Sessions, make_engine, make_sessions
from core.ids import new_id
from core.retention import hide_subject
from core.settings import Settings
from tests.factories import make_subject
from worker.forgetting import forget_erased


class Memory:
    """Of an engine; notes who was to be forgotten."""

    def __init__(self, *held: UUID) -> None:
        self._held, self.asked = held, list[set[UUID]]()

    def remembered(self) -> Collection[UUID]:
        return self._held

    def forget(self, subjects: Collection[UUID]) -> None:
        self.asked.append(set(subjects))


def test_those_who_were_erased_are_forgotten(sync_sessions: Sessions) -> None:
    with sync_sessions.begin() as session:
        erased, other = make_subject(session), make_subject(session)
        session.execute(hide_subject(erased.id))
    memory = Memory(erased.id, other.id)
    forget_erased(memory, sync_sessions)
    assert memory.asked == [{erased.id}]


def test_without_the_database_what_is_old_goes_nevertheless(settings: Settings) -> None:
    nowhere = "postgresql+psycopg://hdb:hdb@127.0.0.1:1/hdb"
    away = make_engine(Settings.model_validate(settings.model_dump() | {"database_url": nowhere}))
    memory = Memory(new_id())
    forget_erased(memory, make_sessions(away))
    assert memory.asked == [set()]
    away.dispose()


def test_nobody_is_asked_for_when_nobody_is_remembered() -> None:
    memory, unusable = Memory(), sessionmaker()
    forget_erased(memory, unusable)
    assert memory.asked == []
