"""`hdb up`, as a person types it: a real supervisor with real children."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from cli.ports import free_ports

READY_SECONDS = 240
ORPHANS_SECONDS = 60  # a worker's own deadline is 40
pytestmark = pytest.mark.slow


class Up:
    """One run of `hdb up`."""

    def __init__(self, directory: Path, port: int) -> None:
        self.url, self.output = (
            f"http://127.0.0.1:{port}",
            directory.parent / f"{directory.name}-{time.monotonic()}.txt",
        )
        command = [sys.executable, "-m", "cli.main", "up", "--directory", str(directory), "--port", str(port)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    def text(self) -> str:
        return self.output.read_text()

    def wait_ready(self) -> None:
        wait_until(lambda: "Ctrl-C stops" in self.text() or self.process.poll() is not None, self.text)
        assert self.process.poll() is None, self.text()

    def family(self) -> dict[str, psutil.Process]:
        """The supervisor's children by what they are."""
        names = {"postgres": "postgres -D", "valkey": "valkey-server", "seaweed": "weed", "api": "uvicorn"}
        names |= {"worker": "worker.main gpu", "housekeeping": "worker.main housekeeping"}
        children = psutil.Process(self.process.pid).children()
        return {name: child for name, part in names.items() for child in children if part in " ".join(child.cmdline())}

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(READY_SECONDS)


@contextmanager
def running(directory: Path) -> Iterator[Up]:
    up = Up(directory, free_ports(1)[0])
    try:
        up.wait_ready()
        yield up
    finally:
        if up.process.poll() is None:
            up.stop(signal.SIGTERM)


def wait_until(true: Callable[[], bool], tell: Callable[[], str], seconds: float = READY_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, tell()
        time.sleep(0.1)


def all_gone(processes: list[psutil.Process]) -> bool:
    return not [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def names(processes: list[psutil.Process]) -> str:
    return ", ".join(str(one) for one in processes)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up") / "data"


@pytest.fixture(scope="module")
def key(directory: Path) -> str:
    """The API key of the first start, which is stopped by Ctrl-C."""
    with running(directory) as up:
        found = re.search(r"hdb_live_\S+", up.text())
        assert found, up.text()
        family = up.descendants()
        assert up.stop(signal.SIGINT) == 130, up.text()
    assert all_gone(family), names(family)
    return found.group()


@pytest.fixture(scope="module")
def again(directory: Path, key: str) -> Iterator[Up]:
    """The second start in the same place."""
    with running(directory) as up:
        yield up


def test_the_next_start_finds_the_data_and_shows_no_key(directory: Path, key: str, again: Up) -> None:
    assert "hdb_live_" not in again.text()
    answer = httpx.get(f"{again.url}/v1/subjects", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
    second = Up(directory, free_ports(1)[0])
    assert second.process.wait(READY_SECONDS) == 1
    assert f"in use by another hdb (process {again.process.pid})" in second.text().replace("\n", " ")


def test_parts_that_are_killed_come_back(key: str, again: Up) -> None:
    for name in ("api", "postgres", "worker"):
        victim = again.family()[name]
        victim.kill()
        wait_until(lambda name=name: f"{name} is back" in again.text(), again.text)  # type: ignore[misc]
        assert again.family()[name].pid != victim.pid

    def answers() -> bool:
        header = {"Authorization": f"Bearer {key}"}
        return httpx.get(f"{again.url}/v1/subjects", headers=header, timeout=30).status_code == 200

    wait_until(answers, again.text)


def test_a_supervisor_that_is_killed_leaves_no_orphans_and_the_next_one_starts(directory: Path, again: Up) -> None:
    family = again.descendants()
    assert len(family) > 6
    again.process.kill()
    again.process.wait()
    wait_until(lambda: all_gone(family), lambda: names(family), ORPHANS_SECONDS)
    with running(directory) as up:
        assert up.stop(signal.SIGTERM) == 128 + signal.SIGTERM


def test_a_taken_port_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        up = Up(tmp_path / "data", port)
        assert up.process.wait(READY_SECONDS) == 1
    assert f"Port {port} is taken" in up.text()
    assert "--port" in up.text()
    assert not (tmp_path / "data" / "postgres").exists()
