"""Worker processes that a test may kill, and servers that it may stop."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cli.embedded import EmbeddedServers
from cli.servers import Postgres, Server, Valkey
from core.settings import Settings
from core.storage import ObjectStore
from migrations.upgrade import upgrade
from tests.crew import Crew, crew_of


@pytest.fixture
def crew(
    settings: Settings, clean_slate: None, broker: redis.Redis, store: ObjectStore, tmp_path: Path
) -> Iterator[Crew]:
    """No worker yet: a test starts what it needs."""
    with crew_of(settings, store, tmp_path) as crew:
        yield crew


@pytest.fixture
def fragile(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, dict[str, Server]]]:
    """A database and a broker of the test's own, that it may stop and start; the bucket is everybody's."""
    folder = tmp_path_factory.mktemp("fragile")
    group = EmbeddedServers(folder, wanted=(Postgres.name, Valkey.name), durable=False)
    try:
        group.start()
        own = settings.model_validate(settings.model_dump() | group.settings())
        upgrade(own.database_url.get_secret_value())
        yield own, {server.name: server for server in group.servers}
    finally:
        group.stop()
