"""A database host that falls silent is noticed: nobody waits for it as long as the system would."""

import os
import socket

from sqlalchemy import Engine

from app.jobs.watch import JobWatcher
from core.settings import Settings


def test_a_silent_host_is_noticed_well_inside_a_lease(engine: Engine, settings: Settings) -> None:
    with engine.connect() as connection:
        assert connection.connection.driver_connection is not None
        descriptor = os.dup(connection.connection.driver_connection.fileno())
    with socket.socket(fileno=descriptor) as own:
        limits = {
            name: own.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        }
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    silence = limits["TCP_KEEPIDLE"] + limits["TCP_KEEPINTVL"] * limits["TCP_KEEPCNT"]
    assert limits["TCP_USER_TIMEOUT"] / 1000 == silence == 20 < settings.lease_seconds


def test_the_listener_notices_it_too(settings: Settings, async_engine: object) -> None:
    watcher = JobWatcher(settings.database_url.get_secret_value(), async_engine)  # type: ignore[arg-type]
    assert "tcp_user_timeout=20000" in watcher._conninfo
    assert "keepalives_idle=10" in watcher._conninfo
