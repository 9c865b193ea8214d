"""The real application on the real servers, and callers with keys."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session

from app.main import create_app
from app.parts import running
from core.accounts import Scope, create_account, create_key
from core.database import Sessions
from core.settings import Settings
from core.storage import ObjectStore
from core.tables import Account
from tests.factories import make_account
from tests.worker.conftest import Bench

ALL_SCOPES = [Scope.READ, Scope.SUBJECTS_WRITE, Scope.GENERATIONS_WRITE]
MakeClient = Callable[..., httpx.AsyncClient]


@pytest.fixture(scope="session")
async def service(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application, running."""
    service = create_app(settings)
    async with running(service.state.parts):
        yield service


@pytest.fixture
async def make_client(service: FastAPI, sync_sessions: Sessions) -> AsyncIterator[MakeClient]:
    """Makes clients, each with a key; of a new account unless one is given."""
    service.state.parts.forecaster.forget()
    clients: list[httpx.AsyncClient] = []

    def make(*, account: Account | None = None, scopes: list[Scope] = ALL_SCOPES, **headers: str) -> httpx.AsyncClient:
        with sync_sessions.begin() as session:
            owner = session.merge(account) if account else make_account(session)
            _, key = create_key(session, owner, scopes=scopes, actor="test")
        transport = httpx.ASGITransport(service, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {key}", **headers}
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://hdb.test", headers=headers))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
def account(sync_sessions: Sessions) -> Account:
    """Whose client `client` is."""
    with sync_sessions.begin() as session:
        return create_account(session, "the caller", actor="test")


@pytest.fixture
def client(make_client: MakeClient, account: Account) -> httpx.AsyncClient:
    """A backend with every scope but admin."""
    return make_client(account=account)


@pytest.fixture
def db(sync_sessions: Sessions) -> Iterator[Session]:
    """To look at rows and to play the worker; commit what others shall see."""
    with sync_sessions() as session:
        yield session


@pytest.fixture
def bench(settings: Settings, sync_sessions: Sessions, store: ObjectStore) -> Bench:
    """A worker on the same servers, whose engine hashes instead of learning."""
    return Bench(settings, sync_sessions, store)


async def submit(client: httpx.AsyncClient, *photos: bytes, **given: Any) -> httpx.Response:  # noqa: ANN401 - form fields
    """POST photos, as a phone does."""
    headers = given.pop("headers", {})
    fields = {"consent": "self"} | given
    files = [("photo", (f"{number}.jpg", photo)) for number, photo in enumerate(photos)]
    return await client.post("/v1/subjects", files=files, data=fields, headers=headers)
