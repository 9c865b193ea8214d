"""Typed, sortable ids: `job_01m8398gmne0a84bdbs8wn5qd6` outside, a UUIDv7 in the database."""

from uuid import UUID

from typeid import TypeID
from typeid.errors import TypeIDException
from uuid_utils import UUID as FastUUID
from uuid_utils import uuid7

ACCOUNT, API_KEY, SUBJECT, JOB, GENERATION, ADAPTER, IMAGE = "acc", "key", "sub", "job", "gen", "adp", "img"
UPLOAD, WEBHOOK, DELIVERY, RECEIPT = "upl", "whk", "dlv", "rcp"


def new_id() -> UUID:
    """A fresh UUIDv7: later ids sort after earlier ones."""
    return UUID(int=uuid7().int)


def encode_id(prefix: str, value: UUID) -> str:
    """The id as callers see it."""
    return str(TypeID.from_uuid(FastUUID(int=value.int), prefix))


def decode_id(prefix: str, text: str) -> UUID | None:
    """The UUID behind a caller's id, or None if it isn't an id of that type."""
    try:
        typed = TypeID.from_string(text)
    except (TypeIDException, ValueError):
        return None
    return UUID(int=typed.uuid.int) if typed.prefix == prefix else None
