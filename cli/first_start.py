"""Who may call: the first start makes an account and a key; the demo takes a key of its own for as long as it runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from core.accounts import Scope, create_account, create_key, list_accounts, revoke_key
from core.database import make_engine, make_sessions
from core.settings import Settings

FIRST_ACCOUNT = "local"
ACTOR = "hdb"


def ensure_account(settings: Settings) -> str | None:
    """The first start's API key; None if there is an account already."""
    engine = make_engine(settings)
    with make_sessions(engine).begin() as session:
        text = None
        if not list_accounts(session):
            account = create_account(session, FIRST_ACCOUNT, actor=ACTOR)
            _, text = create_key(session, account, scopes=[Scope.ADMIN], actor=ACTOR, environment=settings.environment)
    engine.dispose()
    return text


@contextmanager
def short_lived_key(settings: Settings) -> Iterator[str]:
    """An API key of the first account that is revoked at the end."""
    engine = make_engine(settings)
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        account = list_accounts(session)[0]
        key, text = create_key(session, account, scopes=[Scope.ADMIN], actor=ACTOR, environment=settings.environment)
    try:
        yield text
    finally:
        with sessions.begin() as session:
            revoke_key(session, key.id, actor=ACTOR)
        engine.dispose()
