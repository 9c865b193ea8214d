from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.accounts import (
    Scope,
    UnknownAccount,
    UnknownKey,
    create_account,
    create_key,
    find_account,
    hash_key,
    list_accounts,
    list_keys,
    revoke_key,
    rotate_key,
)
from core.ids import new_id
from core.settings import Environment
from core.tables import Account, AuditEntry


@pytest.fixture
def account(sync_session: Session) -> Account:
    return create_account(sync_session, "ada", actor="test")


def test_an_accounts_name_is_its_own(sync_session: Session, account: Account) -> None:
    assert find_account(sync_session, "ada").id == account.id
    assert account in list_accounts(sync_session)
    with pytest.raises(UnknownAccount):
        find_account(sync_session, "nobody")
    with pytest.raises(IntegrityError), sync_session.begin_nested():
        create_account(sync_session, "ada", actor="test")


def test_a_key_is_shown_once(sync_session: Session, account: Account) -> None:
    row, key = create_key(sync_session, account, scopes=[Scope.READ], actor="test")
    assert key.startswith("hdb_live_")
    assert (row.sha256, row.scopes) == (hash_key(key), ["read"])
    assert row.hint == key[:13] + "..."
    assert list_keys(sync_session, account) == [row]


@pytest.mark.parametrize("environment", Environment)
def test_a_key_says_which_deployments_it_is_for(
    sync_session: Session, account: Account, environment: Environment
) -> None:
    given = {"scopes": [Scope.READ], "actor": "test", "environment": environment}
    row, key = create_key(sync_session, account, **given)  # type: ignore[arg-type]  # keywords of several types
    _, rotated = rotate_key(sync_session, row.id, overlap=timedelta(0), actor="test", environment=environment)
    assert [text[:9] for text in (key, rotated, row.hint)] == [f"hdb_{environment.value}_"] * 3


def test_two_keys_differ(sync_session: Session, account: Account) -> None:
    assert len({create_key(sync_session, account, scopes=[Scope.READ], actor="test")[1] for _ in range(5)}) == 5


def test_a_rotated_key_works_on_for_the_overlap(sync_session: Session, account: Account) -> None:
    old, _ = create_key(sync_session, account, scopes=[Scope.READ, Scope.ADMIN], actor="test")
    new, _ = rotate_key(sync_session, old.id, overlap=timedelta(hours=1), actor="test")
    assert (new.scopes, new.expires_at) == (old.scopes, None)
    assert old.expires_at is not None
    assert timedelta(minutes=55) < old.expires_at - datetime.now(UTC) < timedelta(minutes=65)


@pytest.mark.parametrize("left", [timedelta(hours=-1), timedelta(minutes=5)])
def test_a_rotation_gives_an_old_key_no_more_time_than_it_had(
    sync_session: Session, account: Account, left: timedelta
) -> None:
    ends_at = datetime.now(UTC) + left
    old, _ = create_key(sync_session, account, scopes=[Scope.READ], actor="test", expires_at=ends_at)
    rotate_key(sync_session, old.id, overlap=timedelta(hours=24), actor="test")
    assert old.expires_at == ends_at


def test_revoking_twice_keeps_the_first_time(sync_session: Session, account: Account) -> None:
    row, _ = create_key(sync_session, account, scopes=[Scope.READ], actor="test")
    first = revoke_key(sync_session, row.id, actor="test").revoked_at
    assert first is not None
    assert revoke_key(sync_session, row.id, actor="test").revoked_at == first
    with pytest.raises(UnknownKey):
        revoke_key(sync_session, new_id(), actor="test")


def test_every_administrative_act_is_recorded_without_the_key(sync_session: Session, account: Account) -> None:
    row, key = create_key(sync_session, account, scopes=[Scope.READ], actor="root@host")
    revoke_key(sync_session, row.id, actor="root@host")
    entries = sync_session.scalars(select(AuditEntry).where(AuditEntry.account_id == account.id)).all()
    assert {entry.action for entry in entries} == {"accounts.create", "keys.create", "keys.revoke"}
    assert key not in str([entry.details for entry in entries])
