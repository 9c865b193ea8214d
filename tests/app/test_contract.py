"""What every answer has, whatever was asked: limits, ids, one shape of errors; and requests that say too much."""

import re
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.limits import RequestLimiter
from core.settings import Settings
from core.tables import ApiKey, Job, Upload
from tests.app.conftest import submit
from tests.app.test_health import another_service
from tests.factories import photo_bytes

POLICY = re.compile(r'"requests";q=\d+;w=60')
LEFT = re.compile(r'"requests";r=\d+;t=\d+')
TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
UNKNOWN = "/v1/jobs/job_01m8398gmne0a84bdbs8wn5qd6"
KEY = {"Idempotency-Key": "k"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def few_strangers(service: FastAPI) -> Iterator[RequestLimiter]:
    """A fresh minute, in which an address may fail three times."""
    limiter = RequestLimiter(per_minute=3)
    usual, service.state.limiter = service.state.limiter, limiter
    yield limiter
    service.state.limiter = usual


def assert_common_headers(answer: httpx.Response) -> None:
    assert POLICY.fullmatch(answer.headers["RateLimit-Policy"]), answer
    assert LEFT.fullmatch(answer.headers["RateLimit"]), answer
    assert TRACE.fullmatch(answer.headers["Traceparent"]), answer
    assert answer.headers["X-Request-Id"], answer


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("GET", "/v1/jobs", {}, 200),
        ("POST", "/v1/uploads", {"json": {"size": 9}}, 201),
        ("GET", "/v1/jobs", {"headers": {"Authorization": ""}}, 401),
        ("GET", "/v1/webhook-endpoints", {}, 403),
        ("GET", UNKNOWN, {}, 404),
        ("GET", "/nothing", {}, 404),
        ("PUT", "/v1/jobs", {}, 405),
        ("POST", "/v1/uploads", {"content": bytes(200_000), "headers": JSON}, 413),
        ("POST", "/v1/subjects", {"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415),
        ("POST", "/v1/uploads", {"content": b"{", "headers": JSON}, 422),
        ("GET", "/livez", {}, 200),
        ("GET", "/readyz", {}, 200),
        ("GET", "/metrics", {}, 200),
        ("GET", "/openapi.json", {}, 200),
        ("GET", "/docs", {}, 200),
        ("GET", "/docs/errors", {}, 200),
    ],
)
async def test_every_answer_has_limits_and_ids(
    client: httpx.AsyncClient, method: str, path: str, sent: dict[str, object], status: int
) -> None:
    answer = await client.request(method, path, **sent)  # type: ignore[arg-type]
    assert answer.status_code == status
    assert_common_headers(answer)
    assert status < 400 or answer.headers["Content-Type"] == "application/problem+json"


async def test_answers_without_a_body_have_them_too(client: httpx.AsyncClient) -> None:
    job = (await submit(client, photo_bytes())).headers["Location"]
    etag = (await client.get(job)).headers["ETag"]
    unchanged = await client.get(job, headers={"If-None-Match": etag})
    assert unchanged.status_code == 304
    assert_common_headers(unchanged)


async def test_who_fails_too_often_waits(
    client: httpx.AsyncClient, service: FastAPI, few_strangers: RequestLimiter
) -> None:
    stranger = {"Authorization": "Bearer hdb_live_guess"}
    answers = [await client.get("/v1/jobs", headers=stranger) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    assert answers[3].json()["code"] == "rate_limited"
    assert int(answers[3].headers["Retry-After"]) >= 1
    assert (await client.get("/v1/jobs")).status_code == 200


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/subjects", "GET, POST"),
        ("/v1/subjects/sub_01m8398gmne0a84bdbs8wn5qd6", "DELETE, GET, PATCH"),
        ("/v1/webhook-endpoints", "GET, POST"),
        ("/v1/generations/gen_01m8398gmne0a84bdbs8wn5qd6", "DELETE, GET"),
        ("/livez", "GET"),
    ],
)
async def test_a_wrong_method_is_told_all_right_ones(client: httpx.AsyncClient, path: str, allowed: str) -> None:
    for method in ("PUT", "OPTIONS"):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/v1/jobs?staus=running", "?staus"),
        (f"{UNKNOWN}?wait=5", "?wait"),
        ("/v1/subjects?limit=5&colour=red", "?colour"),
        ("/v1/jobs?subject_id=sub_nonsense", "?subject_id"),
        ("/v1/generations?subject_id=job_01m8398gmne0a84bdbs8wn5qd6", "?subject_id"),
        ("/v1/jobs?cursor=AAAA", "?cursor"),
        ("/v1/usage?since=0", "?since"),
        ("/v1/subjects?client_reference=a%00b", "?client_reference"),
    ],
)
async def test_a_query_that_means_nothing_is_pointed_at(client: httpx.AsyncClient, path: str, pointer: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("name", "pointer"), [("a/b", "#/a~1b"), ("a~b", "#/a~0b"), ("a b", "#/a%20b"), ("é", "#/%C3%A9")]
)
async def test_pointers_are_written_as_rfc_6901_says(client: httpx.AsyncClient, name: str, pointer: str) -> None:
    asked = await client.post("/v1/tokens", json={name: 1})
    form = await submit(client, photo_bytes(), **{name: ["1", "2"]})
    assert [each.json()["errors"][0]["pointer"] for each in (asked, form)] == [pointer] * 2


@pytest.mark.parametrize("text", ["a\x00b", "two\nlines", "\x1b[31m", "   ", "a" * 201])
async def test_texts_are_one_short_line(client: httpx.AsyncClient, text: str) -> None:
    path = (await submit(client, photo_bytes())).json()["subject"]["links"]["self"]
    assert (await client.patch(path, json={"name": text})).json()["errors"][0]["pointer"] == "#/name"
    assert (await submit(client, photo_bytes(), client_reference=text)).status_code == 422


@pytest.mark.parametrize("path", ["/v1/subjects", "/v1/tokens", "/v1/uploads"])
async def test_half_a_character_in_a_name_is_pointed_at(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, content=b'{"\\ud800": 1, "consent": "self", "size": 9}', headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_forms_charset_is_no_way_in(client: httpx.AsyncClient) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    photo = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\nx\r\n--x--\r\n'
    for name, value in ((rb"\ud800", b"1"), (b"name", rb"\ud800"), (b"name", rb"a\x00b")):
        headers = {"Content-Type": "multipart/form-data; charset=unicode_escape; boundary=x"}
        body = part % (b"consent", b"self") + part % (name, value) + photo
        answer = await client.post("/v1/subjects", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), name


async def test_half_a_character_is_refused(client: httpx.AsyncClient) -> None:
    for path, body in (("/v1/tokens", b'{"subject_id": "\\ud800"}'), ("/v1/subjects", b'{"name": "\\ud800"}')):
        answer = await client.post(path, content=body, headers=JSON)
        assert answer.status_code in {404, 422}, path


async def test_a_repeated_upload_is_the_same_place_signed_anew(client: httpx.AsyncClient, db: Session) -> None:
    asked = {"size": 9, "content_type": "image/heic"}
    first, again = [await client.post("/v1/uploads", json=asked, headers=KEY) for _ in range(2)]
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.json()["id"] == first.json()["id"]
    assert "Signature" in again.json()["put"]["url"]
    assert db.query(Upload).count() == 1
    other = await client.post("/v1/uploads", json={"size": 10}, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    db.query(Upload).delete()
    db.commit()
    late = await client.post("/v1/uploads", json=asked, headers=KEY)
    assert (late.status_code, "Idempotency-Replayed" in late.headers) == (201, False)
    assert late.json()["id"] != first.json()["id"]


async def test_a_repeated_token_is_shown_once(client: httpx.AsyncClient, db: Session) -> None:
    first, again = [await client.post("/v1/tokens", json={"seconds": 60}, headers=KEY) for _ in range(2)]
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert first.json()["token"].startswith("hdb_tok_")
    assert again.json() == first.json() | {"token": None}
    assert db.query(ApiKey).filter_by(one_subject=True).count() == 1


async def test_traces_reach_the_job(client: httpx.AsyncClient, db: Session) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = await submit(client, photo_bytes(), headers={"Traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    assert answer.headers["Traceparent"].split("-")[1] == trace
    assert trace in str(db.scalars(select(Job.traceparent)).one())


async def test_times_are_in_utc_wherever_the_database_is(
    client: httpx.AsyncClient, settings: Settings, db: Session
) -> None:
    path = (await submit(client, photo_bytes())).headers["Location"]
    database = db.scalar(select(func.current_database()))
    db.execute(text(f"ALTER DATABASE \"{database}\" SET timezone = 'Asia/Tokyo'"))
    db.commit()
    try:
        async with another_service(settings) as elsewhere:
            job = (await elsewhere.get(path, headers={"Authorization": client.headers["Authorization"]})).json()
    finally:
        db.execute(text(f'ALTER DATABASE "{database}" RESET timezone'))
        db.commit()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", job["created_at"])


async def test_holding_an_answer_is_confirmed(client: httpx.AsyncClient) -> None:
    made = await submit(client, photo_bytes(), headers={"Prefer": "wait=1"})
    assert (made.status_code, made.headers["Preference-Applied"]) == (202, "wait=1")
    read = await client.get(made.headers["Location"], headers={"Prefer": "respond-async, wait=1"})
    assert read.headers["Preference-Applied"] == "wait=1"
    assert "Preference-Applied" not in (await client.get(made.headers["Location"])).headers
