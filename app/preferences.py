"""`Prefer: wait=N` (RFC 7240), and how soon to ask again."""

import re

MAX_WAIT_SECONDS = 20
WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,9})(?=$|[,;\s])", re.IGNORECASE)
UNKNOWN_RETRY_SECONDS, MAX_RETRY_SECONDS, POLLS_PER_ETA = 2, 10, 4


def wait_seconds(prefer: str | None) -> int:
    """For how long the caller lets us hold the answer; 0 if they didn't say."""
    found = WAIT.search(prefer or "")
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else 0


def retry_after(eta_seconds: int | None) -> int:
    """Ask again in so many seconds: seldom when it takes long."""
    if eta_seconds is None:
        return UNKNOWN_RETRY_SECONDS
    return max(1, min(MAX_RETRY_SECONDS, eta_seconds // POLLS_PER_ETA))


def retry_header(eta_seconds: int | None) -> dict[str, str]:
    """The same as a header."""
    return {"Retry-After": str(retry_after(eta_seconds))}
