"""Free TCP ports on the loopback interface."""

import secrets
import socket

LOOPBACK = "127.0.0.1"
FIRST, LAST = 20_000, 32_000  # below the range from which Linux takes the near end of outgoing connections


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Random, so that two stacks that start together seldom ask for the same one."""
    found: set[int] = set()
    while len(found) < count:
        port = FIRST + secrets.randbelow(LAST - FIRST)
        if is_free(port):
            found.add(port)
    return list(found)


def next_free(port: int, host: str = LOOPBACK) -> int:
    """The first free port from `port` on."""
    return next(candidate for candidate in range(port, 65536) if is_free(candidate, host))
