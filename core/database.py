"""One URL, two session makers: async for the API, sync for the worker. psycopg serves both."""

from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from core.settings import Settings

CONNECT_SECONDS = 3
Sessions = sessionmaker[Session]
AsyncSessions = async_sessionmaker[AsyncSession]


def make_engine(settings: Settings) -> Engine:
    """The worker's and the command line's connection pool."""
    return create_engine(
        settings.database_url.get_secret_value(),
        pool_pre_ping=True,
        connect_args={"connect_timeout": CONNECT_SECONDS},
    )


def make_async_engine(settings: Settings) -> AsyncEngine:
    """The API's connection pool."""
    return create_async_engine(
        settings.database_url.get_secret_value(),
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=10,
        pool_timeout=5,
        connect_args={"connect_timeout": CONNECT_SECONDS},
    )


def make_sessions(engine: Engine) -> Sessions:
    """Rows stay readable after the commit: the worker hands them on."""
    return sessionmaker(engine, expire_on_commit=False)


def make_async_sessions(engine: AsyncEngine) -> AsyncSessions:
    """The same for the API."""
    return async_sessionmaker(engine, expire_on_commit=False)
