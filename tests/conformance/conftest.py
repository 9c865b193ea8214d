"""A worker on the tests' servers."""

import pytest

from core.database import Sessions
from core.settings import Settings
from core.storage import ObjectStore
from tests.worker.conftest import Bench


@pytest.fixture
def bench(settings: Settings, sync_sessions: Sessions, store: ObjectStore) -> Bench:
    """Its engine hashes instead of learning."""
    return Bench(settings, sync_sessions, store)
