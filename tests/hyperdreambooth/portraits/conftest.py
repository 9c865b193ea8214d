"""The head is read once; a person costs a twentieth of a second."""

import pytest

from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.identity import Identity, make_identity


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Head:
    return Head.load(cache=tmp_path_factory.mktemp("head"))


@pytest.fixture(scope="session")
def somebody(head: Head) -> Identity:
    return make_identity(1_000_003, slider_count=len(head.sliders))
