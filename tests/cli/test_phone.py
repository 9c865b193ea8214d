"""The phone on a bad network, against scripted answers."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from cli.errors import Refused
from cli.phone import Phone

JOB: dict[str, Any] = {
    "id": "job_1",
    "status": "running",
    "error": None,
    "links": {"self": "/v1/jobs/job_1", "cancel": "/v1/jobs/job_1/cancel"},
}
Answer = httpx.Response | Exception


class Script:
    """Answers in this order; remembers what was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.asked = list(answers), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.phone.POLL_SECONDS", 0)


def ask(script: Script, what: Callable[[Phone], Any]) -> Any:  # noqa: ANN401 - whatever the phone returns
    with Phone("http://api", "secret", transport=httpx.MockTransport(script)) as phone:
        return what(phone)


def problem(status: int, code: str, detail: str) -> httpx.Response:
    body = {"code": code, "detail": detail}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json"})


def test_a_repeated_request_carries_the_same_idempotency_key() -> None:
    created = {"subject": {"id": "sub_1"}, "job": JOB}
    busy = problem(503, "unavailable", "later")
    script = Script(httpx.ConnectError("no network"), busy, httpx.Response(202, json=created))
    assert ask(script, lambda phone: phone.send_photo(b"jpeg", name="me.jpg")) == created
    assert len({request.headers["Idempotency-Key"] for request in script.asked}) == 1
    assert all(b"jpeg" in request.content for request in script.asked)


def test_an_unchanged_job_is_not_sent_again() -> None:
    script = Script(
        httpx.Response(200, json=JOB, headers={"ETag": '"a"'}),
        httpx.Response(304),
        httpx.Response(200, json=JOB | {"status": "succeeded"}, headers={"ETag": '"b"'}),
    )
    seen = list[str]()
    ask(script, lambda phone: phone.follow(JOB, lambda job: seen.append(job["status"])))
    assert seen == ["running", "succeeded"]
    assert [request.headers.get("If-None-Match") for request in script.asked] == [None, '"a"', '"a"']


def test_a_rejected_job_is_told_by_its_code() -> None:
    rejected = JOB | {"status": "rejected", "error": {"code": "several_faces", "detail": "Two people"}}
    with pytest.raises(Refused, match="Two people") as refused:
        ask(Script(httpx.Response(200, json=rejected)), lambda phone: phone.follow(JOB, lambda _: None))
    assert refused.value.code == "several_faces"


def test_a_problem_is_told_by_its_code() -> None:
    with pytest.raises(Refused, match="not a picture") as refused:
        ask(Script(problem(415, "photo_unsupported", "not a picture")), lambda phone: phone.send_photo(b"", name="x"))
    assert refused.value.code == "photo_unsupported"


def test_leftovers_are_canceled_and_ended_jobs_left_alone() -> None:
    jobs = [JOB, JOB | {"id": "job_2", "status": "failed", "links": {"self": "/v1/jobs/job_2"}}]
    script = Script(httpx.Response(200, json={"jobs": jobs}), httpx.Response(200, json=JOB))
    ask(script, lambda phone: phone.cancel_leftovers())
    assert [(one.method, one.url.path) for one in script.asked] == [
        ("GET", "/v1/jobs"),
        ("POST", "/v1/jobs/job_1/cancel"),
    ]
