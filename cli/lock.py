"""One supervisor for a data directory; the next one waits until the last one's servers are gone."""

import fcntl
import json
import os
import time
from pathlib import Path

import psutil

from cli.errors import StackError

ORPHANS_SECONDS = 20


class DirectoryLock:
    """A lock that servers inherit: after a crash of the supervisor it is free when the last of them has ended."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = (directory / "lock").open("a+")
        self._take()
        self._file.truncate(0)
        self._file.write(json.dumps({"pid": os.getpid(), "started": psutil.Process().create_time()}))
        self._file.flush()

    @property
    def fd(self) -> int:
        """What children inherit."""
        return self._file.fileno()

    def release(self) -> None:
        """Give it back; a no-op for the servers, which have ended by then."""
        self._file.close()

    def _take(self) -> None:
        deadline = time.monotonic() + ORPHANS_SECONDS
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._refuse_if_owned(timed_out=time.monotonic() > deadline)
                time.sleep(0.1)
            else:
                return

    def _refuse_if_owned(self, *, timed_out: bool) -> None:
        owner = read_owner(self.directory)
        if owner is None and not timed_out:
            return
        self._file.close()
        who = f"another hdb (process {owner})" if owner else "servers that an hdb left behind"
        raise StackError(
            f"{self.directory} is in use by {who}.", hint="Stop it first, or choose another place with --directory."
        )


def read_owner(directory: Path) -> int | None:
    """The pid of the supervisor that lives there; None if it died."""
    path = directory / "lock"
    text = path.read_text() if path.exists() else ""
    if not text:
        return None
    noted = json.loads(text)
    try:
        alive = psutil.Process(noted["pid"]).create_time() == noted["started"]
    except psutil.NoSuchProcess:
        return None
    return int(noted["pid"]) if alive else None
