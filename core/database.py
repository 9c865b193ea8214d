"""One URL, two session makers: async for the API, sync for the worker. psycopg serves both."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, Row, Select, create_engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from core.settings import Settings

CONNECT_SECONDS = 3
# A host that falls silent is dead after 20 seconds, well inside a lease. Left to the system, a call waits for a quarter
# of an hour, and the heartbeat with it.
NOTICE_SILENCE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2, "tcp_user_timeout": 20_000}
# Rather a slow answer than an error when a thousand callers come at once; a dead database refuses at once anyway.
POOL_SECONDS = 15
Sessions = sessionmaker[Session]
AsyncSessions = async_sessionmaker[AsyncSession]


def connect_args(settings: Settings) -> dict[str, Any]:
    """Times come back in UTC, whatever the server's own zone: so callers see them."""
    given = make_url(settings.database_url.get_secret_value()).query.get("options", "")
    return {"connect_timeout": CONNECT_SECONDS, **NOTICE_SILENCE, "options": f"{given} -c timezone=UTC".strip()}


def make_engine(settings: Settings) -> Engine:
    """The worker's and the command line's connection pool."""
    return create_engine(
        settings.database_url.get_secret_value(),
        pool_pre_ping=True,
        connect_args=connect_args(settings),
    )


def make_async_engine(settings: Settings) -> AsyncEngine:
    """The API's connections for requests that change something: one transaction each."""
    return create_async_engine(
        settings.database_url.get_secret_value(),
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=5,
        pool_timeout=POOL_SECONDS,
        connect_args=connect_args(settings),
    )


def make_read_engine(settings: Settings) -> AsyncEngine:
    """The API's connections for single SELECTs: no BEGIN, ROLLBACK or ping, one round trip each (docs/experiments.md).

    The connection used last is used next, so that few are busy and their prepared statements are warm.
    """
    return create_async_engine(
        settings.database_url.get_secret_value(),
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
        pool_size=10,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        pool_use_lifo=True,
        connect_args=connect_args(settings),
    )


def make_sessions(engine: Engine) -> Sessions:
    """Rows stay readable after the commit: the worker hands them on."""
    return sessionmaker(engine, expire_on_commit=False)


def make_async_sessions(engine: AsyncEngine) -> AsyncSessions:
    """The same for the API."""
    return async_sessionmaker(engine, expire_on_commit=False)


async def read_one(
    engine: AsyncEngine, statement: Select[*tuple[Any, ...]], parameters: Mapping[str, Any]
) -> Row[Any] | None:
    """One row or none. A connection that died since it was used last is no error: nobody had pinged it."""
    try:
        return await _read_one(engine, statement, parameters)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        return await _read_one(engine, statement, parameters)


async def _read_one(
    engine: AsyncEngine, statement: Select[*tuple[Any, ...]], parameters: Mapping[str, Any]
) -> Row[Any] | None:
    async with engine.connect() as connection:
        row: Row[Any] | None = (await connection.execute(statement, parameters)).one_or_none()
        return row
