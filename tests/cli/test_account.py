"""As whom the servers run."""

import os
import stat
from pathlib import Path

import pytest

from cli.account import Account, server_account
from cli.errors import StackError


def test_a_private_folder_stops_another_account_but_not_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    owner = folder.stat().st_uid
    stranger = Account("stranger", owner + 1, folder.stat().st_gid + 1)
    assert not stranger.can_reach(folder / "file")
    me = Account("me", owner, folder.stat().st_gid)
    assert me._may_search(folder)


def test_a_normal_user_runs_the_servers_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1 if os.getuid() == 0 else os.getuid())
    assert server_account([Path("/")]) is None


def test_a_user_without_a_name_is_told_what_postgres_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(StackError, match="54321 has no entry in /etc/passwd"):
        server_account([])


@pytest.mark.skipif(os.getuid() != 0, reason="only root lends an account")
def test_root_lends_nobody_the_right_to_pass_private_folders_only_where_needed(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    lent = server_account([private / "data"])
    assert lent is not None
    assert lent.pass_private_folders
    public = server_account([Path("/usr/bin")])
    assert public is not None
    assert not public.pass_private_folders
    assert stat.S_IMODE(private.stat().st_mode) == 0o700, "nobody's folder was opened"
