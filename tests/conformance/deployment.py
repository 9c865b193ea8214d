"""A deployment that schemathesis can meet: an API process, two accounts that own one of each thing, and a worker."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from core.accounts import Scope, create_key
from core.settings import Settings
from tests.crew import environment_of
from tests.factories import make_account, photo_bytes
from tests.waiting import eventually
from tests.worker.conftest import Bench
from worker.attempts import Batches

PHOTO = photo_bytes()
Ids = dict[str, list[str]]


@contextmanager
def api_process(settings: Settings) -> Iterator[str]:
    """The API as it is deployed; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--log-level", "warning"], env=os.environ | environment_of(settings), stdout=subprocess.DEVNULL
    )
    try:
        eventually(lambda: _answers(f"http://127.0.0.1:{port}"), within=60)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def worker_beside(bench: Bench) -> Iterator[None]:
    """Jobs end soon after they were asked for."""
    done = threading.Event()
    works: list[Batches[Any, Any]] = [bench.personalizing(), bench.generating(), bench.erasing()]

    def work() -> None:
        while not done.wait(0.3):
            for batches in works:
                batches.run_one("mini")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def new_key(bench: Bench) -> str:
    """Of a new account."""
    with bench.sessions.begin() as session:
        _, key = create_key(session, make_account(session), scopes=list(Scope), actor="test")
    return key


@dataclass(frozen=True)
class Caller:
    """One of the accounts."""

    url: str
    key: str

    def ask(self, method: str, path: str, **given: Any) -> Any:  # noqa: ANN401 - JSON
        """The answer's body; nothing that is asked for here may be refused."""
        headers = {"Authorization": f"Bearer {self.key}", **given.pop("headers", {})}
        answer = httpx.request(method, f"{self.url}{path}", headers=headers, trust_env=False, timeout=60, **given)
        assert answer.is_success, answer.text
        return answer.json()

    def make_subject(self) -> Any:  # noqa: ANN401 - JSON
        """A subject, and weights for it."""
        made = self.ask("POST", "/v1/subjects", files={"photo": ("me.png", PHOTO)}, data={"consent": "self"})
        eventually(lambda: self.ask("GET", made["job"]["links"]["self"])["status"] == "succeeded")
        return made

    def make_upload(self) -> str:
        """A photo that waits for its subject."""
        upload = self.ask("POST", "/v1/uploads", json={"size": len(PHOTO)})
        httpx.put(upload["put"]["url"], content=PHOTO, headers=upload["put"]["headers"], trust_env=False)
        return str(upload["id"])

    def make_one_of_each(self) -> Ids:
        """Ids of everything that an account can have."""
        made = self.make_subject()
        drawn = self.ask("POST", f"{made['subject']['links']['self']}/generations", json={"prompt": "a"})
        hook = self.ask("POST", "/v1/webhook-endpoints", json={"url": "https://example.com/hook"})
        told = self.ask("POST", f"/v1/webhook-endpoints/{hook['id']}/test")
        return {
            "subject_id": [made["subject"]["id"]],
            "job_id": [made["job"]["id"], drawn["job"]["id"]],
            "generation_id": [drawn["generation"]["id"]],
            "endpoint_id": [hook["id"]],
            "delivery_id": [told["id"]],
            "upload_id": [self.make_upload() for _ in range(3)],
        }
