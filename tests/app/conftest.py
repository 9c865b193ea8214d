"""The real application on the real servers, on a socket of its own, and callers with keys."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy.orm import Session

from app.main import create_app
from core.accounts import Scope, create_account, create_key
from core.database import Sessions
from core.settings import Settings
from core.storage import ObjectStore
from core.tables import Account
from tests.factories import make_account
from tests.worker.conftest import Bench

ALL_SCOPES = [Scope.READ, Scope.SUBJECTS_WRITE, Scope.GENERATIONS_WRITE]
PATIENCE_SECONDS = 60
MakeClient = Callable[..., httpx.AsyncClient]


# Costly to make, and none of the clients needs it.
TLS = ssl.create_default_context()


class Server(uvicorn.Server):
    """Beside tests: Ctrl-C is for pytest."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(service: FastAPI) -> AsyncIterator[str]:
    """The address where the application listens, as it does when it is deployed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # As deployed: uvicorn's own five seconds end just when a test comes back to an idle connection.
        server = Server(uvicorn.Config(service, log_config=None, timeout_keep_alive=30, timeout_graceful_shutdown=1))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(30):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


@pytest.fixture(scope="session")
def service(settings: Settings) -> FastAPI:
    """The application."""
    return create_app(settings)


@pytest.fixture(scope="session")
async def address(service: FastAPI) -> AsyncIterator[str]:
    """Where it runs."""
    async with serving(service) as address:
        yield address


@pytest.fixture
async def make_client(service: FastAPI, address: str, sync_sessions: Sessions) -> AsyncIterator[MakeClient]:
    """Makes clients, each with a key; of a new account unless one is given."""
    service.state.parts.forecaster.forget()
    clients: list[httpx.AsyncClient] = []

    def make(*, account: Account | None = None, scopes: list[Scope] = ALL_SCOPES, **headers: str) -> httpx.AsyncClient:
        with sync_sessions.begin() as session:
            owner = session.merge(account) if account else make_account(session)
            _, key = create_key(session, owner, scopes=scopes, actor="test")
        headers = {"Authorization": f"Bearer {key}", **headers}
        clients.append(httpx.AsyncClient(base_url=address, headers=headers, timeout=PATIENCE_SECONDS, verify=TLS))
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
