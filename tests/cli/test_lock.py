"""One supervisor for a data directory."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.errors import StackError
from cli.lock import DirectoryLock, read_owner


def test_a_second_supervisor_is_refused_at_once_and_told_who_is_there(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    with pytest.raises(StackError, match=f"in use by another hdb .process {os.getpid()}"):
        DirectoryLock(tmp_path)
    lock.release()
    DirectoryLock(tmp_path).release()


def test_after_a_crash_the_next_one_waits_for_the_servers_that_are_still_ending(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(json.dumps({"pid": 2**22 - 1, "started": 1.0}))
    with (tmp_path / "lock").open("a") as inherited:
        fcntl.flock(inherited, fcntl.LOCK_EX)
        program = "import sys; sys.stdin.read(1)"
        server = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, pass_fds=[inherited.fileno()])
    assert server.stdin is not None
    with server:
        server.stdin.close()
        DirectoryLock(tmp_path).release()
    assert server.returncode == 0


def test_a_reused_pid_is_not_taken_for_the_owner(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(json.dumps({"pid": os.getpid(), "started": 1.0}))
    assert read_owner(tmp_path) is None


def test_an_empty_directory_has_no_owner(tmp_path: Path) -> None:
    assert read_owner(tmp_path) is None
