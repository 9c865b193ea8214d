"""Our own processes in the stack: the API, the GPU worker and housekeeping."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from cli.process import Child, Part, Place
from core.settings import Settings

API_STOP_SECONDS = 10
KEEP_ALIVE = ("--timeout-keep-alive", "30")
# A worker finishes its running step, hands its leases back and then leaves; it sees to its own deadline.
WORKER_GRACE_SECONDS = 5


class Service(Part):
    """A Python process of ours, started with the interpreter that runs us."""

    def __init__(self, name: str, *command: str, log: Path, env: Mapping[str, str], stop_seconds: float) -> None:
        self.name, self.stop_seconds = name, stop_seconds
        self._argv, self._log, self.env = [sys.executable, "-m", *command], log, env

    def begin(self) -> None:
        self.child = Child(self.name, self._argv, Place(Path.cwd()), self._log, self.env)
        self.child.start()

    def wait_ready(self) -> None:
        """Others don't wait for it: what it does is on record when it comes."""


class Api(Service):
    """The HTTP service."""

    def __init__(self, settings: Settings, *, log: Path, env: Mapping[str, str]) -> None:
        listen = ("--host", settings.api_host, "--port", str(settings.api_port), "--no-access-log")
        # Polls come up to ten seconds apart: their connection waits for them. Streams of events stay open until their
        # job ends; they resume at the next start.
        command = (
            "uvicorn",
            "--factory",
            "app.main:create_app",
            *listen,
            "--timeout-graceful-shutdown",
            "5",
            *KEEP_ALIVE,
        )
        super().__init__("api", *command, log=log, env=env, stop_seconds=API_STOP_SECONDS)
        self.url = local_url(settings)

    def wait_ready(self) -> None:
        with httpx.Client(base_url=self.url, timeout=5) as client:
            self.running().wait_until(lambda: client.get("/livez").is_success)


def make_services(settings: Settings, ours: Mapping[str, str], logs: Path) -> tuple[Api, Service, Service]:
    """API, worker and housekeeping, with our environment and the settings that the stack adds to it."""
    env = os.environ | {f"HDB_{name.upper()}": text for name, text in ours.items()}
    return (
        Api(settings, log=logs / "api.log", env=env),
        _worker("worker", "gpu", settings, logs, env),
        _worker("housekeeping", "housekeeping", settings, logs, env),
    )


def _worker(name: str, role: str, settings: Settings, logs: Path, env: Mapping[str, str]) -> Service:
    patience = settings.stop_seconds + WORKER_GRACE_SECONDS
    return Service(name, "worker.main", role, log=logs / f"{name}.log", env=env, stop_seconds=patience)


def local_url(settings: Settings) -> str:
    """How this machine reaches the API: a wildcard address is for listening only."""
    host = "127.0.0.1" if settings.api_host in {"0.0.0.0", "::"} else settings.api_host  # noqa: S104 - compared, not bound
    return f"http://{host}:{settings.api_port}"
