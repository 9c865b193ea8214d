"""Says when the parts that nobody waits for have come: the worker loads its networks for a while."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx

AWAITED = ("worker", "housekeeping")
LOOK_SECONDS, PATIENCE_SECONDS = 1.0, 60.0


class Readiness:
    """Asks the API's own `/readyz` until everything is there."""

    def __init__(
        self,
        client: httpx.Client,
        logs: Path,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._logs, self._say, self._clock = client, logs, say, clock
        self._awaited = set(AWAITED)
        self._next_look = clock()
        self._complain_at: float | None = clock() + PATIENCE_SECONDS

    def look(self) -> None:
        """Ask once a second at most; say what is new."""
        if not self._awaited or self._clock() < self._next_look:
            return
        self._next_look = self._clock() + LOOK_SECONDS
        for name in sorted(self._awaited & self._present()):
            self._awaited.remove(name)
            self._say(f"{name:12} ready")
        if self._awaited and self._complain_at is not None and self._clock() >= self._complain_at:
            self._complain_at = None
            files = ", ".join(str(self._logs / f"{name}.log") for name in sorted(self._awaited))
            self._say(f"still not ready: {', '.join(sorted(self._awaited))}; see {files}")

    def _present(self) -> set[str]:
        try:
            checks = self._client.get("/readyz").json()["checks"]
        except (httpx.TransportError, ValueError, KeyError):
            return set()
        return {name for name, state in checks.items() if state == "ok"}
