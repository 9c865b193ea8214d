"""What `hdb up` says about the parts that come later."""

from pathlib import Path

import httpx

from cli.readiness import Readiness


class Api:
    """An API of which the test decides what is there; nothing means that it doesn't answer."""

    def __init__(self) -> None:
        self.present: set[str] | None = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.present is None:
            raise httpx.ConnectError("nobody listens", request=request)
        checks = {name: "ok" if name in self.present else "missing" for name in ("database", "worker", "housekeeping")}
        return httpx.Response(200, json={"status": "degraded", "checks": checks})


def test_each_part_is_announced_once_and_a_late_one_complained_of_once(tmp_path: Path) -> None:
    api, said, now = Api(), list[str](), [0.0]
    with httpx.Client(transport=httpx.MockTransport(api), base_url="http://api") as client:
        readiness = Readiness(client, tmp_path, said.append, clock=lambda: now[0])
        for second, present in enumerate([None, {"database"}, {"housekeeping"}, {"housekeeping"}]):
            now[0], api.present = float(second), present
            readiness.look()
        assert said == ["housekeeping ready"]
        for second in (61, 62):
            now[0] = float(second)
            readiness.look()
        assert said[1:] == [f"still not ready: worker; see {tmp_path / 'worker.log'}"]
        now[0], api.present = 63.0, {"worker", "housekeeping"}
        readiness.look()
        readiness.look()
    assert said[2:] == ["worker       ready"]
