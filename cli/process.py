"""Child processes with a log: started, watched, stopped."""

import contextlib
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.account import Account, before_exec
from cli.errors import StackError

LOG_TAIL_CHARACTERS, LONG_LOG_BYTES = 2000, 10_000_000


@dataclass(frozen=True)
class Place:
    """Where a process works and as whom; `lock` stays held until the process ends."""

    directory: Path
    account: Account | None = None
    lock: int | None = None

    def create(self) -> None:
        """Make the folder itself; its parents must let the account through."""
        self.folder(".")

    def folder(self, name: str) -> Path:
        """A private folder of the account."""
        path = self.directory / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._give(path)
        return path

    def write(self, name: str, text: str) -> Path:
        """A private file of the account."""
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(text)
        self._give(path)
        return path

    def _give(self, path: Path) -> None:
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)


@dataclass
class Child:
    """One process; `stop_signal` asks it to end, `death_signal` reaches it when we die without asking."""

    name: str
    argv: Sequence[str | Path]
    place: Place
    log: Path
    env: Mapping[str, str]
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it, in a session of its own, so that Ctrl-C reaches the supervisor alone."""
        if self.log.exists() and self.log.stat().st_size > LONG_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old.log"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(part) for part in self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.place.directory,
                env=dict(self.env),
                start_new_session=True,
                preexec_fn=before_exec(self.place.account, death_signal=self.death_signal),
                pass_fds=() if self.place.lock is None else (self.place.lock,),
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs, or before it was started."""
        return self.process.poll() if self.process else None

    def wait_until(self, ready: Callable[[], bool], *, timeout_seconds: float = 120) -> None:
        """Ask until it says yes; a refused connection is a no."""
        deadline, reason = time.monotonic() + timeout_seconds, "it did not answer"
        while time.monotonic() < deadline:
            if self.exit_code is not None:
                raise StackError(f"{self.name} ended with code {self.exit_code}:\n{self.log_tail()}")
            try:
                if ready():
                    return
            except Exception as error:  # each client has errors of its own for "not yet"
                reason = str(error)
            time.sleep(0.03)
        raise StackError(f"{self.name} was not ready in {timeout_seconds:.0f} s ({reason}):\n{self.log_tail()}")

    def ask_to_stop(self) -> None:
        """Send the stop signal, if it runs."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(self.stop_signal)

    def wait_stopped(self, *, timeout_seconds: float) -> None:
        """Wait for the end; past the timeout, force it."""
        if self.process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_seconds)
        self.process.kill()
        self.process.wait()

    def log_tail(self) -> str:
        """The end of its log, for a message."""
        return self.log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:] if self.log.exists() else ""


class Part(ABC):
    """One part of the stack. `begin` starts it without waiting, so that parts can start side by side."""

    name: str
    stop_seconds: float = 20
    child: Child | None = None

    @abstractmethod
    def begin(self) -> None:
        """Start, and return at once."""

    @abstractmethod
    def wait_ready(self) -> None:
        """Return when others can work with it."""

    def running(self) -> Child:
        """Its process; `begin` comes first."""
        assert self.child is not None
        return self.child

    @property
    def exit_code(self) -> int | None:
        """None while it runs, or before it was started."""
        return self.child.exit_code if self.child else None

    def ask_to_stop(self) -> None:
        """Send the stop signal; `wait_stopped` waits."""
        if self.child:
            self.child.ask_to_stop()

    def wait_stopped(self) -> None:
        """Wait for the end; past `stop_seconds`, force it."""
        if self.child:
            self.child.wait_stopped(timeout_seconds=self.stop_seconds)


def stop_together(parts: Sequence[Part]) -> None:
    """Ask all, then wait for all: none is left behind."""
    for part in parts:
        part.ask_to_stop()
    for part in parts:
        part.wait_stopped()
