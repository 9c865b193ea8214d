"""Every caller who waits holds a socket open: take as many as the system allows."""

import resource


def raise_open_files_limit() -> int:
    """The soft limit, which is often 1024, becomes the hard one; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
