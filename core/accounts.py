"""Accounts and API keys, for the command line. A key is shown once; the database has its hash."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from core.ids import ACCOUNT, API_KEY, encode_id
from core.settings import Environment
from core.tables import Account, ApiKey, AuditEntry

KEY_BYTES = 32
HINT_CHARACTERS = 4


class Scope(StrEnum):
    """What a key may do. `admin` may do everything, webhooks and tokens included."""

    READ = "read"
    SUBJECTS_WRITE = "subjects:write"
    GENERATIONS_WRITE = "generations:write"
    ADMIN = "admin"


# What a phone's token may do, with its one subject.
TOKEN_SCOPES = (Scope.READ, Scope.SUBJECTS_WRITE)


class UnknownAccount(LookupError):
    """No account by that name."""


class UnknownKey(LookupError):
    """No key by that id."""


def key_prefix(environment: Environment) -> str:
    """How every key of such a deployment begins."""
    return f"hdb_{environment}_"


def new_key(prefix: str) -> str:
    """A fresh key, which nobody can guess."""
    return prefix + secrets.token_urlsafe(KEY_BYTES)


def hash_key(key: str) -> str:
    """What is stored: the key has 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_hint(key: str, prefix: str) -> str:
    """Enough to tell two keys apart in a list."""
    return f"{prefix}{key.removeprefix(prefix)[:HINT_CHARACTERS]}..."


def create_account(session: Session, name: str, *, actor: str) -> Account:
    """A new account; its name is unique."""
    account = Account(name=name)
    session.add(account)
    session.flush()
    record(session, actor, "accounts.create", account.id, name=name)
    return account


def list_accounts(session: Session) -> list[Account]:
    """Oldest first."""
    return list(session.scalars(select(Account).order_by(Account.id)))


def find_account(session: Session, name: str) -> Account:
    """The account by its name."""
    account = session.scalar(select(Account).where(Account.name == name))
    if account is None:
        raise UnknownAccount(name)
    return account


def create_key(
    session: Session,
    account: Account,
    *,
    scopes: list[Scope],
    actor: str,
    expires_at: datetime | None = None,
    environment: Environment = Environment.LIVE,
) -> tuple[ApiKey, str]:
    """A new key: its row, and its text, which is never seen again."""
    prefix = key_prefix(environment)
    text = new_key(prefix)
    key = ApiKey(
        account_id=account.id,
        sha256=hash_key(text),
        hint=key_hint(text, prefix),
        scopes=[scope.value for scope in scopes],
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    record(session, actor, "keys.create", account.id, key=encode_id(API_KEY, key.id), scopes=key.scopes)
    return key, text


def list_keys(session: Session, account: Account) -> list[ApiKey]:
    """An account's keys, oldest first; phones' tokens are not among them."""
    mine = select(ApiKey).where(ApiKey.account_id == account.id, ApiKey.one_subject.is_(False))
    return list(session.scalars(mine.order_by(ApiKey.id)))


def rotate_key(
    session: Session, key_id: UUID, *, overlap: timedelta, actor: str, environment: Environment = Environment.LIVE
) -> tuple[ApiKey, str]:
    """A key with the same scopes; the old one works on for a while, if it still did, so that no caller is cut off."""
    old = _key(session, key_id)
    account = session.get_one(Account, old.account_id)
    scopes = [Scope(scope) for scope in old.scopes]
    new, text = create_key(session, account, scopes=scopes, actor=actor, environment=environment)
    ends_at = datetime.now(UTC) + overlap
    old.expires_at = min(old.expires_at or ends_at, ends_at)
    record(session, actor, "keys.rotate", account.id, old=encode_id(API_KEY, old.id), new=encode_id(API_KEY, new.id))
    return new, text


def revoke_key(session: Session, key_id: UUID, *, actor: str) -> ApiKey:
    """The key stops working; doing it again changes nothing."""
    key = _key(session, key_id)
    session.execute(
        update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=func.now())
    )
    session.refresh(key)
    record(session, actor, "keys.revoke", key.account_id, key=encode_id(API_KEY, key.id))
    return key


def _key(session: Session, key_id: UUID) -> ApiKey:
    key = session.get(ApiKey, key_id)
    if key is None:
        raise UnknownKey(encode_id(API_KEY, key_id))
    return key


def record(session: Session, actor: str, action: str, account_id: UUID | None = None, **details: object) -> None:
    """Write into the audit log who did what; never a key."""
    if account_id is not None:
        details["account"] = encode_id(ACCOUNT, account_id)
    session.add(AuditEntry(actor=actor, action=action, account_id=account_id, details=details))
