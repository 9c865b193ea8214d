"""The whole service on one machine: embedded servers, API, worker and housekeeping, under one data directory.

Read next: `cli/embedded.py` (the servers), `cli/services.py` (our processes), `cli/supervisor.py` (who restarts them).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from cli.embedded import EmbeddedServers
from cli.errors import StackError
from cli.first_start import ensure_account
from cli.lock import DirectoryLock
from cli.ports import is_free, next_free
from cli.process import Part, stop_together
from cli.readiness import Readiness
from cli.seaweed import Seaweed
from cli.servers import Postgres, Valkey
from cli.services import local_url, make_services
from cli.supervisor import Supervisor
from core.settings import Settings
from core.storage import ObjectStore
from migrations.upgrade import upgrade

Say = Callable[[str], None]
# The setting that replaces each embedded server.
REPLACED_BY = {Postgres.name: "database_url", Valkey.name: "broker_url", Seaweed.name: "s3_endpoint"}
POLL_SECONDS = 0.2


class Stack:
    """Everything that `hdb up` runs."""

    def __init__(
        self,
        directory: Path,
        given: Settings,
        say: Say,
        *,
        port: int | None = None,
        defaults: Mapping[str, str] | None = None,
    ) -> None:
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.directory, self._say = directory.resolve(), say
        self._lock = DirectoryLock(self.directory)
        api_port = choose_port(given, port, say)
        wanted = [name for name, setting in REPLACED_BY.items() if setting not in given.model_fields_set]
        origins = [f"http://{host}:{api_port}" for host in ("127.0.0.1", "localhost")]
        origins += [str(given.public_url).rstrip("/")] if given.public_url else []
        self.embedded = EmbeddedServers(self.directory, wanted=wanted, origins=origins, lock=self._lock.fd)
        unless_given = {name: text for name, text in (defaults or {}).items() if name not in given.model_fields_set}
        ours = {**unless_given, **self.embedded.settings(), "api_port": str(api_port)}
        self.settings = Settings.model_validate(ours)
        logs = self.directory / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        self.services = make_services(self.settings, ours, logs)
        self.supervisor: Supervisor | None = None

    @property
    def url(self) -> str:
        """Where the API listens."""
        return local_url(self.settings)

    def start(self) -> str | None:
        """Start everything in order; returns the API key that the first start makes."""
        begun = time.monotonic()
        self.embedded.start()
        for server in self.embedded.servers:
            self._say(f"{server.name:12} ready")
        upgrade(self.settings.database_url.get_secret_value())
        ObjectStore(self.settings).create_bucket()
        for service in self.services:
            service.begin()
        for service in self.services:
            service.wait_ready()
        parts: list[Part] = [*self.embedded.servers, *self.services]
        self.supervisor = Supervisor(parts, self._say)
        self._say(f"{'api':12} ready at {self.url} after {time.monotonic() - begun:.1f} s")
        return ensure_account(self.settings)  # last: a key made by a start that failed would never be seen

    def run_until(self, finished: Callable[[], bool]) -> None:
        """Keep everything alive, and say what else comes; call it from the main thread."""
        assert self.supervisor is not None
        with httpx.Client(base_url=self.url, timeout=1) as client:
            readiness = Readiness(client, self.directory / "logs", self._say)
            while not finished():
                self.supervisor.mend()
                readiness.look()
                time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """First nobody may ask, then nobody works, then the servers go."""
        api, *workers = self.services
        stop_together([api])
        stop_together(workers)
        self.embedded.stop()
        self._lock.release()


@contextmanager
def running_stack(
    directory: Path, given: Settings, say: Say, *, port: int | None = None, defaults: Mapping[str, str] | None = None
) -> Iterator[tuple[Stack, str | None]]:
    """A started stack for the length of a `with`, and the first start's API key."""
    stack = Stack(directory, given, say, port=port, defaults=defaults)
    try:
        key = stack.start()
        yield stack, key
    finally:
        say("stopping")
        stack.stop()


def choose_port(given: Settings, asked: int | None, say: Say) -> int:
    """A port that was asked for is taken or refused; the default gives way to the next free one, said aloud."""
    explicit = asked if asked is not None else given.api_port if "api_port" in given.model_fields_set else None
    if explicit is not None:
        if is_free(explicit, given.api_host):
            return explicit
        raise StackError(f"Port {explicit} is taken by another program.", hint="Choose another with --port.")
    port = next_free(given.api_port, given.api_host)
    if port != given.api_port:
        say(f"port {given.api_port} is taken: using {port}")
    return port
