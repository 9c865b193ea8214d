"""A process says that it is there, whatever else goes wrong."""

import pytest
from sqlalchemy import select

from core.database import Sessions
from core.lifecycle import WorkerRole
from core.tables import WorkerProcess
from tests.waiting import eventually
from worker import presence
from worker.presence import Presence, State


def test_what_fails_beside_does_not_end_the_reports(sync_sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "REPORT_SECONDS", 0.01)
    calls: list[int] = []

    def fail() -> None:
        calls.append(len(calls))
        raise RuntimeError("the device is gone")

    reporting = Presence(sync_sessions, WorkerRole.GPU, beside=fail)

    def is_ready() -> bool:
        with sync_sessions() as session:
            own = select(WorkerProcess.state).where(WorkerProcess.name == reporting.name)
            return session.scalar(own) == State.READY

    reporting.begin()
    try:
        eventually(lambda: len(calls) >= 3)
        reporting.become(State.READY)
        eventually(is_ready)
    finally:
        reporting.end()
