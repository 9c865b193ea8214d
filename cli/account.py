"""As whom the embedded servers run: Postgres refuses root, so root lends them another account."""

import ctypes
import os
import pwd
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cli.errors import StackError

# From linux/prctl.h, linux/securebits.h and linux/capability.h.
PR_SET_PDEATHSIG, PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 28, 47, 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2


@dataclass(frozen=True)
class Account:
    """A user of this machine; `pass_private_folders` lets its processes reach files below folders of mode 0700."""

    name: str
    uid: int
    gid: int
    pass_private_folders: bool = False

    def can_reach(self, path: Path) -> bool:
        """Whether every folder on the way to `path` lets this account through."""
        return all(self._may_search(folder) for folder in path.resolve().parents)

    def _may_search(self, folder: Path) -> bool:
        status = folder.stat()
        bit = 0o100 if status.st_uid == self.uid else 0o010 if status.st_gid == self.gid else 0o001
        return bool(status.st_mode & bit)


def server_account(paths: list[Path]) -> Account | None:
    """None means ourselves; as root, `nobody`."""
    if os.geteuid() != 0:
        _require_a_name(os.geteuid())
        return None
    entry = pwd.getpwnam("nobody")
    account = Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    hidden = [path for path in paths if not account.can_reach(path)]
    if not hidden:
        return account
    if _lendable_capability() is None:
        raise StackError(
            f"{hidden[0]} lies below a private folder. Postgres refuses root, and {account.name} can't go there.",
            hint="Move the project (or --directory) elsewhere, or run it as a normal user.",
        )
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, pass_private_folders=True)


def _require_a_name(uid: int) -> None:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise StackError(
            f"The user id {uid} has no entry in /etc/passwd, and Postgres refuses to run without one.",
            hint="Add one, or give HDB_DATABASE_URL.",
        ) from None


def _lendable_capability() -> int | None:
    """The least that lets a process of another account pass private folders, if this container grants it."""
    if not sys.platform.startswith("linux"):
        return None
    status = Path("/proc/self/status").read_text().split("CapEff:\t")[1]
    held = int(status.split("\n")[0], 16)
    return next((bit for bit in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if held >> bit & 1), None)


def before_exec(account: Account | None, *, death_signal: signal.Signals) -> Callable[[], None]:
    """For `Popen(preexec_fn=...)`: change the account, and ask for a signal when our starter dies.

    The signal also comes when the *thread* that started us ends, so start processes from the main thread only.
    """
    linux = sys.platform.startswith("linux")
    libc = ctypes.CDLL(None, use_errno=True)
    lent = _lendable_capability() if account and account.pass_private_folders else None

    def prepare() -> None:
        if lent is not None:
            # Keeps capabilities over the change of account, also for access(2), by which initdb looks for postgres.
            _check(libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
        if account is not None:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
        if lent is not None:
            _keep_only(libc, lent)
        if linux:
            _check(libc.prctl(PR_SET_PDEATHSIG, death_signal))  # last: a change of account clears it

    return prepare


def _keep_only(libc: ctypes.CDLL, capability: int) -> None:
    mask = 1 << capability
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)  # effective, permitted, inheritable; low word, then high
    _check(libc.capset(header, sets))
    _check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
