"""POST to an address that a stranger chose, without becoming their way into our network.

The name is resolved once, every address behind it is checked, and the connection goes to a checked address, so that a
name that answers differently the second time gains nothing. No redirect is followed, and one deadline covers it all.
"""

import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import httpcore

from core.addresses import is_public

SECONDS = 15
MAX_ANSWER_BYTES = 65_536


class ForbiddenAddress(httpcore.ConnectError):
    """The name leads to a private, link-local or otherwise special address."""


@dataclass(frozen=True)
class Answer:
    """What the receiver said: a status, or why there is none."""

    status: int | None
    error: str | None


def post(
    url: str, headers: Mapping[bytes | str, bytes | str], body: bytes, *, allow_private: bool, seconds: float = SECONDS
) -> Answer:
    """Send once. The status alone counts: a body is not read, and more than 64 kB before it are too many."""
    backend = GuardedBackend(allow_private=allow_private, deadline=time.monotonic() + seconds)
    try:
        with (
            httpcore.ConnectionPool(network_backend=backend, max_connections=1) as pool,
            pool.stream("POST", url, headers=headers, content=body, extensions=_timeouts(seconds)) as response,
        ):
            status: int = response.status
    except Exception as error:  # whatever an address that a stranger chose can raise is the answer
        return Answer(None, f"{type(error).__name__}: {error}"[:300])
    return Answer(status, None if 200 <= status < 300 else f"the receiver answered {status}")


class GuardedBackend(httpcore.NetworkBackend):
    """Connects to public addresses alone, and lets nothing outlast the deadline."""

    def __init__(self, *, allow_private: bool, deadline: float) -> None:
        self._allow_private = allow_private
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        if not self._allow_private and not all(is_public(ip_address(address)) for address in addresses):
            raise ForbiddenAddress(f"{host} is not a public address")
        left = min(_left(self._deadline), timeout or SECONDS)
        stream = self._sockets.connect_tcp(addresses[0], port, left, local_address, socket_options)
        return _DeadlineStream(stream, self._deadline)


class _DeadlineStream(httpcore.NetworkStream):
    """A byte now and then would keep a plain time-out from ever striking, and an answer may have no end."""

    _taken = 0

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        room = MAX_ANSWER_BYTES - self._taken
        if room <= 0:
            raise httpcore.ReadError("the receiver answered more than 64 kB")
        received = self._stream.read(min(max_bytes, room), _left(self._deadline))
        self._taken += len(received)
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _DeadlineStream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's own signature
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the receiver took too long")
    return left


def _timeouts(seconds: float) -> dict[str, Any]:
    return {"timeout": {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}}
