"""Objects without a row: a photo whose request never committed, a file that a phone sent after its upload was used.

Ids begin with their time, and keys begin with ids: what is old enough to judge is a stretch of names, in order. So each
look costs one listing, goes on where the last one ended, and never comes near the objects of a running request.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import select

from core.database import Sessions
from core.object_keys import SUBJECTS, UPLOADS
from core.storage import ObjectStore
from core.tables import Subject, Upload

# No request and no presigned address lives as long: whoever made such an id has committed or never will.
OLD_ENOUGH = timedelta(hours=2)
# How far a process that has just started looks back; the one before it has seen what is older.
LOOK_BACK = timedelta(days=7)
EVERY_SECONDS = 300.0
AT_ONCE = 500

log = structlog.get_logger()


@dataclass(frozen=True)
class Place:
    """Where objects lie under their row's id, and what of them a request may have left behind."""

    table: type[Subject] | type[Upload]
    prefix: str
    left_behind: str


PLACES = (Place(Subject, SUBJECTS, "/photos/"), Place(Upload, UPLOADS, ""))


class Orphans:
    """Finds and deletes what belongs to no row, in one place."""

    def __init__(self, sessions: Sessions, store: ObjectStore, place: Place) -> None:
        self._sessions, self._store, self._place = sessions, store, place
        self._seen = name_at(LOOK_BACK)
        self._next_look = 0.0

    def delete_some(self) -> int:
        """Look at the next stretch of names, if it is time; returns how many objects went."""
        if time.monotonic() < self._next_look:
            return 0
        names = self._store.children(self._place.prefix, after=self._seen, limit=AT_ONCE)
        old = [name for name in names if name < name_at(OLD_ENOUGH)]
        if len(old) < AT_ONCE:
            self._next_look = time.monotonic() + EVERY_SECONDS
        deleted = sum(self._delete(name) for name in self._without_row(old))
        self._seen = max((self._seen, *old))
        return deleted

    def _without_row(self, names: Sequence[str]) -> list[str]:
        table = self._place.table
        ids = {name: own_id for name in names if (own_id := _id_of(name)) is not None}
        with self._sessions() as session:
            known = set(session.scalars(select(table.id).where(table.id.in_(ids.values()))))
        return [name for name, own_id in ids.items() if own_id not in known]

    def _delete(self, name: str) -> int:
        deleted = self._store.delete_prefix(f"{self._place.prefix}{name}{self._place.left_behind}")
        log.warning("orphans.deleted", prefix=self._place.prefix, name=name, objects=deleted)
        return deleted


def name_at(ago: timedelta) -> str:
    """Ids made after that moment sort behind this, ids made before sort before it (RFC 9562, UUIDv7)."""
    milliseconds = f"{int((time.time() - ago.total_seconds()) * 1000):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}"


def _id_of(name: str) -> UUID | None:
    """None for what is not ours."""
    try:
        own_id = UUID(name)
    except ValueError:
        return None
    return own_id if str(own_id) == name else None
