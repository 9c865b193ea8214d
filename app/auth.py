"""From an API key to a caller: who they are and what they may do."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, bindparam, func, or_, select

from core.accounts import Scope, hash_key, key_prefix
from core.errors import Forbidden, Unauthorized
from core.settings import Environment
from core.tables import ApiKey, Generation, Job, Subject

MAX_KEY_CHARACTERS = 200
NO_KEY = "This key is unknown, revoked or expired."


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The account behind a key. A phone's token sees one subject only, or none before it has made it."""

    account_id: UUID
    key_id: UUID
    scopes: frozenset[Scope]
    one_subject: bool
    subject_id: UUID | None

    def require(self, scope: Scope) -> None:
        """Forbidden without the scope."""
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            raise Forbidden(f"This needs a key with the scope `{scope}`.")

    def with_a_key(self) -> "Caller":
        """Forbidden for a phone's token."""
        if self.one_subject:
            raise Forbidden("A token may make one subject and watch it, and no more.")
        return self

    def bound_to(self, subject_id: UUID | None) -> "Caller":
        """The same caller once its token has made a subject."""
        return replace(self, subject_id=subject_id) if self.one_subject else self

    def owns(self, table: type[Subject] | type[Job] | type[Generation]) -> ColumnElement[bool]:
        """Rows that this caller gets to see. Everybody else's look like unknown ones."""
        mine = table.account_id == self.account_id
        if not self.one_subject:
            return mine
        subject_id = Subject.id if table is Subject else table.subject_id  # type: ignore[union-attr]
        return mine & (subject_id == self.subject_id)


# What a caller is made of; named so that it fits beside other tables' columns.
CALLER_COLUMNS = (
    ApiKey.id.label("key_id"),
    ApiKey.account_id.label("key_account_id"),
    ApiKey.scopes,
    ApiKey.one_subject,
    ApiKey.subject_id.label("key_subject_id"),
)
# Takes `key_sha256`.
KEY_WORKS = (
    (ApiKey.sha256 == bindparam("key_sha256"))
    & ApiKey.revoked_at.is_(None)
    & or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
)
WHO_ASKS = select(*CALLER_COLUMNS).where(KEY_WORKS)


def token_prefix(environment: Environment) -> str:
    """How every phone's token of such a deployment begins."""
    return f"hdb_tok_{environment}_"


def key_sha256(key: str, environment: Environment) -> str:
    """The hash to look for; Unauthorized for what can be no key of this deployment."""
    ours = key.startswith((key_prefix(environment), token_prefix(environment)))
    if not ours or len(key) > MAX_KEY_CHARACTERS:
        raise Unauthorized(NO_KEY)
    return hash_key(key)


def caller_of(row: Row[Any] | None) -> Caller:
    """Unauthorized unless the key is known, not revoked and not expired."""
    if row is None:
        raise Unauthorized(NO_KEY)
    return Caller(
        account_id=row.key_account_id,
        key_id=row.key_id,
        scopes=scope_set(tuple(row.scopes)),
        one_subject=row.one_subject,
        subject_id=row.key_subject_id,
    )


@lru_cache
def scope_set(names: tuple[str, ...]) -> frozenset[Scope]:
    """Keys have few different ones."""
    return frozenset(Scope(name) for name in names)
