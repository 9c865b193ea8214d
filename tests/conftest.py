"""The real servers, started once for all tests by the code that `hdb up` uses, and ways to begin each test clean.

A test that stays in one transaction takes `session` or `sync_session` (rolled back). A test in which several
connections or processes meet takes `sessions` or `sync_sessions` (committed; every table is emptied afterwards).
"""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from cli.embedded import embedded_servers
from core.database import (
    AsyncSessions,
    Sessions,
    make_async_engine,
    make_async_sessions,
    make_engine,
    make_sessions,
)
from core.settings import Settings
from core.storage import ObjectStore
from core.tables import Table
from migrations.upgrade import upgrade


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, str]]:
    """PostgreSQL, Valkey and SeaweedFS on free ports: the fields of `Settings` that lead to them."""
    with (
        tempfile.TemporaryDirectory(prefix="hdb-tests-") as folder,
        embedded_servers(Path(folder), durable=False) as found,
    ):
        yield found


@pytest.fixture(scope="session")
def settings(servers: dict[str, str]) -> Settings:
    """Settings for those servers; the database is freshly migrated."""
    settings = Settings.model_validate(servers)
    upgrade(settings.database_url.get_secret_value())
    return settings


@pytest.fixture(scope="session")
def engine(settings: Settings) -> Iterator[Engine]:
    """The sync connection pool, as the worker has it."""
    engine = make_engine(settings)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
async def async_engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """The async connection pool, as the API has it."""
    engine = make_async_engine(settings)
    yield engine
    await engine.dispose()


@pytest.fixture
def sync_session(engine: Engine) -> Iterator[Session]:
    """A session whose work is rolled back; its commits are savepoints."""
    with engine.connect() as connection:
        transaction = connection.begin()
        with Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as session:
            yield session
        transaction.rollback()


@pytest.fixture
async def session(async_engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """The same for async code."""
    async with async_engine.connect() as connection:
        transaction = await connection.begin()
        async with AsyncSession(
            connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
        ) as session:
            yield session
        await transaction.rollback()


@pytest.fixture
def clean_slate(engine: Engine, broker: redis.Redis) -> Iterator[None]:
    """Afterwards every table and the broker are empty again."""
    yield
    names = ", ".join(table.name for table in Table.metadata.sorted_tables)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {names} CASCADE"))


@pytest.fixture
def sync_sessions(engine: Engine, clean_slate: None) -> Sessions:
    """Makes sessions that really commit."""
    return make_sessions(engine)


@pytest.fixture
def sessions(async_engine: AsyncEngine, clean_slate: None) -> AsyncSessions:
    """The same for async code."""
    return make_async_sessions(async_engine)


@pytest.fixture
def broker(settings: Settings) -> Iterator[redis.Redis]:
    """A client of Valkey, to look at messages; empty before and after."""
    with redis.Redis.from_url(settings.broker_url.get_secret_value()) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture(scope="session")
def store(settings: Settings) -> ObjectStore:
    """The bucket. Not emptied: take keys of your own."""
    return ObjectStore(settings)
