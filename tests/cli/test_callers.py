"""`hdb accounts` and `hdb keys`, against the real database."""

import signal
import socket

import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from cli.main import app
from core.accounts import hash_key
from core.database import Sessions
from core.settings import Settings
from core.tables import ApiKey, AuditEntry

runner = CliRunner()


@pytest.fixture(autouse=True)
def _on_our_database(settings: Settings, sync_sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDB_DATABASE_URL", settings.database_url.get_secret_value())


def hdb(*words: str) -> Result:
    return runner.invoke(app, list(words))


def test_a_key_is_shown_once_and_its_hash_is_kept(sync_sessions: Sessions) -> None:
    assert hdb("accounts", "create", "ada").exit_code == 0
    key = hdb("keys", "create", "ada", "--scope", "read", "--days", "3").stdout.strip()
    assert key.startswith("hdb_live_")
    with sync_sessions() as session:
        row = session.scalars(select(ApiKey)).one()
    assert row.sha256 == hash_key(key)
    assert row.scopes == ["read"]
    listed = hdb("keys", "list", "ada").stdout
    assert key not in listed
    assert "read" in listed
    assert "until" in listed


def test_keys_of_a_test_deployment_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDB_ENVIRONMENT", "test")
    hdb("accounts", "create", "ada")
    assert hdb("keys", "create", "ada").stdout.startswith("hdb_test_")
    key_id = hdb("keys", "list", "ada").stdout.split()[0]
    assert hdb("keys", "rotate", key_id).stdout.startswith("hdb_test_")


def test_a_revoked_key_is_listed_as_revoked() -> None:
    hdb("accounts", "create", "ada")
    hdb("keys", "create", "ada")
    key_id = hdb("keys", "list", "ada").stdout.split()[0]
    assert "revoked" in hdb("keys", "revoke", key_id).stdout
    assert "revoked" in hdb("keys", "list", "ada").stdout


def test_rotation_shows_a_new_key_and_ends_the_old_one_later() -> None:
    hdb("accounts", "create", "ada")
    old = hdb("keys", "create", "ada").stdout
    key_id = hdb("keys", "list", "ada").stdout.split()[0]
    new = hdb("keys", "rotate", key_id, "--overlap-hours", "1").stdout
    assert new.startswith("hdb_live_")
    assert new != old
    states = [
        line.split()[-1] if "active" in line else "until" for line in hdb("keys", "list", "ada").stdout.splitlines()
    ]
    assert states == ["until", "active"]


def test_every_use_is_in_the_audit_log_with_who_it_was(
    sync_sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "grace")
    hdb("accounts", "create", "ada")
    key = hdb("keys", "create", "ada").stdout.strip()
    key_id = hdb("keys", "list", "ada").stdout.split()[0]
    rotated = hdb("keys", "rotate", key_id).stdout.strip()
    hdb("keys", "revoke", key_id)
    hdb("accounts", "list")
    with sync_sessions() as session:
        entries = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    assert [entry.action for entry in entries] == [
        "accounts.create",
        "keys.create",
        "keys.list",
        "keys.create",
        "keys.rotate",
        "keys.revoke",
        "accounts.list",
    ]
    assert {entry.actor for entry in entries} == {f"grace@{socket.gethostname()}"}
    told = str([entry.details for entry in entries])
    assert (key in told, rotated in told) == (False, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("keys", "create", "nobody"), "no account nobody"),
        (("keys", "revoke", "key_nonsense"), "no key key_nonsense"),
        (("keys", "revoke", "key_01m8398gmne0a84bdbs8wn5qd6"), "no key key_01m8398gmne0a84bdbs8wn5qd6"),
    ],
)
def test_what_is_not_there_is_told_without_a_traceback(words: tuple[str, ...], message: str) -> None:
    result = hdb(*words)
    assert result.exit_code == 1
    assert message in result.stdout
    assert "Traceback" not in result.output


def test_two_accounts_cannot_share_a_name() -> None:
    hdb("accounts", "create", "ada")
    result = hdb("accounts", "create", "ada")
    assert result.exit_code == 1
    assert "already" in result.stdout
    assert hdb("accounts", "list").stdout.count("ada") == 1


def test_a_database_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDB_DATABASE_URL", "postgresql+psycopg://hdb:hdb@127.0.0.1:1/hdb")
    result = hdb("accounts", "list")
    assert result.exit_code == 1
    assert "does not answer" in result.stdout


def test_signal_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    hdb("accounts", "list")
    assert signal.getsignal(signal.SIGTERM) is before
