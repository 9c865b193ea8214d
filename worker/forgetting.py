"""What an engine remembers of people who were erased goes, whether or not anybody asks it for more pictures."""

from collections.abc import Collection
from typing import Protocol
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from core.database import Sessions
from core.retention import erased_among

log = structlog.get_logger()


class Remembering(Protocol):
    """What an engine keeps of people between two batches."""

    def remembered(self) -> Collection[UUID]:
        """Whose weights it holds."""

    def forget(self, subjects: Collection[UUID]) -> None:
        """Drop theirs, and what nobody asked for lately."""


def forget_erased(engine: Remembering, sessions: Sessions) -> None:
    """Ask who of them was erased. A database that is away is asked again at the next beat; what is old goes anyway."""
    remembered = engine.remembered()
    if not remembered:
        return
    try:
        with sessions() as session:
            erased = set(session.scalars(erased_among(remembered)))
    except SQLAlchemyError as error:
        log.warning("erased.unknown", error=str(error))
        erased = set()
    engine.forget(erased)
