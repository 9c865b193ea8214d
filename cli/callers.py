"""`hdb accounts` and `hdb keys`: who may call."""

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from cli.errors import StackError
from cli.output import plain_errors, say
from core.accounts import (
    Scope,
    UnknownAccount,
    UnknownKey,
    create_account,
    create_key,
    find_account,
    list_accounts,
    list_keys,
    record,
    revoke_key,
    rotate_key,
)
from core.database import make_engine, make_sessions
from core.ids import ACCOUNT, API_KEY, decode_id, encode_id
from core.settings import Settings
from core.tables import ApiKey

accounts = typer.Typer(no_args_is_help=True, help="Make and list accounts.")
keys = typer.Typer(no_args_is_help=True, help="Make, list, replace and revoke API keys.")

Directory = Annotated[Path, typer.Option(help="Where `hdb up` keeps its data.")]
AccountName = Annotated[str, typer.Argument(help="The account's name.")]
KeyId = Annotated[str, typer.Argument(help="As `hdb keys list` shows it: key_...")]
HERE = Path(".hdb")


@accounts.command("create")
def create_account_command(name: AccountName, directory: Directory = HERE) -> None:
    """Make an account."""
    with _transaction(directory) as session:
        account = create_account(session, name, actor=actor())
        say(f"{encode_id(ACCOUNT, account.id)}  {name}")


@accounts.command("list")
def list_accounts_command(directory: Directory = HERE) -> None:
    """List the accounts, oldest first."""
    with _transaction(directory) as session:
        record(session, actor(), "accounts.list")
        for account in list_accounts(session):
            say(f"{encode_id(ACCOUNT, account.id)}  {account.name}")


@keys.command("create")
def create_key_command(
    account: AccountName,
    scope: Annotated[list[Scope] | None, typer.Option(help="May be repeated; everything if not given.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Valid for so long; for ever if not given.")] = None,
    directory: Directory = HERE,
) -> None:
    """Make an API key, which is shown this once."""
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    with _transaction(directory) as session:
        owner = find_account(session, account)
        _, text = create_key(
            session,
            owner,
            scopes=scope or [Scope.ADMIN],
            actor=actor(),
            expires_at=expires_at,
            environment=Settings().environment,
        )
        say(text)


@keys.command("list")
def list_keys_command(account: AccountName, directory: Directory = HERE) -> None:
    """List an account's keys: id, beginning, scopes, state."""
    with _transaction(directory) as session:
        owner = find_account(session, account)
        record(session, actor(), "keys.list", owner.id)
        for key in list_keys(session, owner):
            say(f"{encode_id(API_KEY, key.id)}  {key.hint}  {','.join(key.scopes)}  {_state(key)}")


@keys.command("rotate")
def rotate_key_command(
    key: KeyId,
    overlap_hours: Annotated[int, typer.Option(min=0, help="The old key works on for so long.")] = 24,
    directory: Directory = HERE,
) -> None:
    """Make a key with the same scopes; the old one ends after the overlap."""
    with _transaction(directory) as session:
        overlap, environment = timedelta(hours=overlap_hours), Settings().environment
        _, text = rotate_key(session, _key_id(key), overlap=overlap, actor=actor(), environment=environment)
        say(text)


@keys.command("revoke")
def revoke_key_command(key: KeyId, directory: Directory = HERE) -> None:
    """The key stops working at once."""
    with _transaction(directory) as session:
        revoked = revoke_key(session, _key_id(key), actor=actor())
        say(f"{encode_id(API_KEY, revoked.id)}  {_state(revoked)}")


def actor() -> str:
    """Who runs the command, for the audit log."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id needs no entry in /etc/passwd
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def known_settings(directory: Path) -> Settings:
    """What the environment says, else the embedded servers of a data directory."""
    given = Settings()
    if "database_url" in given.model_fields_set or not (directory / "state.json").exists():
        return given
    # Only a machine that ran `hdb up` has what the embedded servers need.
    from cli.embedded import known_addresses

    return Settings.model_validate(known_addresses(directory) | given.model_dump(include=given.model_fields_set))


@contextmanager
def _transaction(directory: Path) -> Iterator[Session]:
    with plain_errors():
        engine = make_engine(known_settings(directory))
        try:
            with make_sessions(engine).begin() as session:
                yield session
        except IntegrityError:
            raise StackError("There is an account of that name already.") from None
        except UnknownAccount as error:
            raise StackError(f"There is no account {error}.", hint="See `hdb accounts list`.") from None
        except UnknownKey as error:
            raise StackError(f"There is no key {error}.", hint="See `hdb keys list`.") from None
        except OperationalError:
            raise StackError("The database does not answer.", hint="Is `hdb up` running here?") from None
        finally:
            engine.dispose()


def _key_id(text: str) -> UUID:
    found = decode_id(API_KEY, text)
    if found is None:
        raise UnknownKey(text)
    return found


def _state(key: ApiKey) -> str:
    if key.revoked_at:
        return f"revoked {key.revoked_at:%Y-%m-%d %H:%M}"
    return f"until {key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "active"
