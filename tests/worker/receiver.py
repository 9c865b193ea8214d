"""A webhook receiver on loopback, as good or as bad as a test wants it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Receiver:
    """What it was told, and what it answers: a status, or a misbehaviour."""

    url: str = ""
    status: int = 200
    behaviour: str = "answer"
    location: str = ""
    messages: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def has_heard(self, count: int) -> bool:
        """So many messages."""
        return len(self.messages) == count


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Listen until the block ends."""
    told = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server's name
            body = self.rfile.read(int(self.headers["content-length"]))
            told.messages.append(({name.lower(): value for name, value in self.headers.items()}, body))
            BEHAVIOURS[told.behaviour](self, told)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}/hook"
    try:
        yield told
    finally:
        told.done.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, told: Receiver) -> None:
    handler.send_response(told.status)
    if told.location:
        handler.send_header("Location", told.location)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def _drip(handler: BaseHTTPRequestHandler, told: Receiver) -> None:
    """A byte of the status line now and then, for ever."""
    try:
        for byte in b"HTTP/1.1 200 " + b"O" * 10_000:
            handler.wfile.write(bytes([byte]))
            if told.done.wait(0.05):
                return
    except OSError:
        return


def _flood(handler: BaseHTTPRequestHandler, told: Receiver) -> None:
    """A body without end."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while not told.done.is_set():
            handler.wfile.write(bytes(1 << 20))
    except OSError:
        return


def _chat(handler: BaseHTTPRequestHandler, told: Receiver) -> None:
    """Headers without end."""
    handler.send_response(200)
    try:
        while not told.done.is_set():
            handler.wfile.write(b"X-More: " + b"x" * 1000 + b"\r\n")
    except OSError:
        return


def _pause(handler: BaseHTTPRequestHandler, told: Receiver) -> None:
    """Many headers in two pieces, the second with the beginning of a body."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"X-More: " + b"x" * 990 + b"\r\n") * 60)
    told.done.wait(0.5)
    handler.wfile.write(b"Content-Length: 30000\r\n\r\n" + bytes(30_000))


def _hang_up(handler: BaseHTTPRequestHandler, told: Receiver) -> None:
    handler.connection.close()


BEHAVIOURS = {"answer": _answer, "drip": _drip, "flood": _flood, "chat": _chat, "pause": _pause, "hang up": _hang_up}
