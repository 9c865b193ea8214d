import asyncio
import io
from typing import Any

import httpx
import pytest
import redis
from fastapi import FastAPI
from PIL import Image
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.subjects import service as subjects
from core.errors import Forbidden
from core.ids import SUBJECT, decode_id
from core.lifecycle import JobKind, JobStatus
from core.storage import ObjectStore
from core.tables import Consent, ErasureReceipt, Job, Subject
from tests.app.conftest import MakeClient, submit
from tests.app.worker_role import personalize
from tests.core.photo_corpus import corners, encoded
from tests.factories import photo_bytes

UNKNOWN = "/v1/subjects/sub_01m8398gmne0a84bdbs8wn5qd6"


async def test_a_photo_becomes_a_subject_and_a_queued_job(client: httpx.AsyncClient, db: Session) -> None:
    answer = await submit(client, photo_bytes(), name="Ada", client_reference="order 7")

    assert answer.status_code == 202
    subject, job = answer.json()["subject"], answer.json()["job"]
    assert answer.headers["Location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert int(answer.headers["Retry-After"]) in range(1, 11)
    assert (subject["name"], subject["status"], subject["weights"]) == ("Ada", "processing", None)
    assert (job["kind"], job["status"], job["version"], job["client_reference"]) == (
        "personalize",
        "queued",
        1,
        "order 7",
    )
    assert job["queue"] == {"position": 1, "ahead_seconds": None}
    assert db.scalars(select(Job.status)).all() == [JobStatus.QUEUED]


async def test_the_bell_rings_for_the_queue_of_the_base_model(client: httpx.AsyncClient, broker: redis.Redis) -> None:
    await submit(client, photo_bytes())
    assert broker.blpop(["gpu.mini"], timeout=5) is not None


async def test_the_stored_photo_is_upright_and_says_nothing_else(
    client: httpx.AsyncClient, db: Session, store: ObjectStore
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A phone"
    await submit(client, encoded(corners(), "JPEG", exif=exif))

    (key,) = db.scalars(select(Subject.photo_keys)).one()
    stored = Image.open(io.BytesIO(store.get(key)))
    assert stored.size == (64, 96)
    assert not stored.getexif()


async def test_consent_is_required_and_recorded(client: httpx.AsyncClient, db: Session) -> None:
    refused = await client.post("/v1/subjects", files={"photo": ("a", photo_bytes())})
    assert (refused.status_code, refused.json()["code"]) == (422, "consent_required")

    await submit(client, photo_bytes(), consent="granted", consent_text="v3")
    consent = db.scalars(select(Consent)).one()
    assert (consent.whose, consent.text_version) == ("granted", "v3")


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"consent": "true"}, "#/consent"),
        ({"nmae": "Ada"}, "#/nmae"),
        ({"name": "a" * 201}, "#/name"),
        ({"deadline_seconds": "0"}, "#/deadline_seconds"),
        ({"method": "magic"}, "#/method"),
        ({"name": ["a", "b"]}, "#/name"),
    ],
)
async def test_a_wrong_field_is_pointed_at(client: httpx.AsyncClient, given: dict[str, object], pointer: str) -> None:
    answer = await submit(client, photo_bytes(), **given)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_a_request_without_a_photo_is_pointed_at(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/subjects", files={"other": ("a", b"x")}, data={"consent": "self"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/photo")


async def test_text_is_no_photo(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/subjects", content=b"me", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("photo", "status", "code"),
    [
        (b"", 415, "photo_unsupported"),
        (b"%PDF-1.7", 415, "photo_unsupported"),
        (photo_bytes()[:60], 422, "photo_unreadable"),
    ],
)
async def test_what_is_no_photo_leaves_nothing_behind(
    client: httpx.AsyncClient, db: Session, photo: bytes, status: int, code: str
) -> None:
    answer = await submit(client, photo)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert db.scalar(select(func.count()).select_from(Subject)) == 0


async def test_a_photo_of_too_many_bytes_is_refused_before_it_is_read(client: httpx.AsyncClient) -> None:
    answer = await submit(client, b"\xff\xd8\xff" + bytes(20_200_000))
    assert (answer.status_code, answer.json()["code"]) == (413, "photo_too_large")
    assert answer.json()["errors"][0]["pointer"] == "#/photo"


async def test_a_charset_that_means_nothing_is_refused(client: httpx.AsyncClient) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="consent"\r\n\r\nself\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; charset=undefined; boundary=x"}
    answer = await client.post("/v1/subjects", content=part, headers=kind)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_while_the_bucket_takes_its_time_no_connection_is_held(
    client: httpx.AsyncClient, service: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, held = service.state.parts, []
    put, pool = parts.store.put, parts.sessions.kw["bind"].pool

    def slowly(*given: object, **named: object) -> None:
        held.append(pool.checkedout())
        put(*given, **named)

    monkeypatch.setattr(parts.store, "put", slowly)
    assert (await submit(client, photo_bytes(), headers={"Idempotency-Key": "k"})).status_code == 202
    assert held == [0]


async def test_a_stream_without_a_length_is_answered_while_it_is_still_being_sent(client: httpx.AsyncClient) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
    told = {"Host": "hdb", "Authorization": client.headers["Authorization"], "Transfer-Encoding": "chunked"}
    told["Content-Type"] = "multipart/form-data; boundary=x"
    head = "".join(["POST /v1/subjects HTTP/1.1\r\n", *(f"{name}: {value}\r\n" for name, value in told.items())])
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    answered, megabytes = asyncio.create_task(reader.readuntil(b"}")), 0
    writer.write(f"{head}\r\n{len(part):x}\r\n".encode() + part + b"\r\n")
    while not answered.done():
        writer.write(f"{1_000_000:x}\r\n".encode() + bytes(1_000_000) + b"\r\n")
        await writer.drain()
        megabytes += 1
        assert megabytes < 100
    writer.close()
    answer = await answered
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"photo_too_large"' in answer


async def test_a_request_that_is_overtaken_leaves_no_photo_of_its_own(
    client: httpx.AsyncClient, db: Session, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, answers, before = {"Idempotency-Key": "k"}, list[httpx.Response](), set(store.keys("subjects/"))
    read_photos = subjects._read_photos

    async def slowly(*given: Any) -> Any:  # noqa: ANN401 - whatever the original takes
        photos = await read_photos(*given)
        if not answers:
            answers.append(httpx.Response(100))
            answers.append(await submit(client, photo_bytes(), headers=key))
        return photos

    monkeypatch.setattr(subjects, "_read_photos", slowly)
    late = await submit(client, photo_bytes(), headers=key)
    assert (late.status_code, late.headers["Location"]) == (202, answers[1].headers["Location"])
    assert set(store.keys("subjects/")) - before == set(db.scalars(select(Subject.photo_keys)).one())


async def test_a_request_that_is_refused_in_the_end_leaves_no_photo(
    client: httpx.AsyncClient, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise Forbidden

    before = set(store.keys("subjects/"))
    monkeypatch.setattr(subjects, "_bind_token", refused)
    assert (await submit(client, photo_bytes())).status_code == 403
    assert set(store.keys("subjects/")) == before


async def test_an_unknown_base_model_is_refused(client: httpx.AsyncClient) -> None:
    answer = await submit(client, photo_bytes(), base_model="sd-99")
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_base_model")


async def test_a_subject_shows_its_weights_once_there_are_some(
    client: httpx.AsyncClient, db: Session, store: ObjectStore
) -> None:
    created = (await submit(client, photo_bytes())).json()["subject"]
    personalize(db, store, b"weights")

    read = await client.get(created["links"]["self"])
    assert (read.json()["status"], read.json()["weights"]["size"]) == ("ready", 7)
    unchanged = await client.get(created["links"]["self"], headers={"If-None-Match": read.headers["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


async def test_a_list_is_paged_newest_first(client: httpx.AsyncClient) -> None:
    ids = [(await submit(client, photo_bytes())).json()["subject"]["id"] for _ in range(3)]

    first = await client.get("/v1/subjects", params={"limit": 2})
    assert [subject["id"] for subject in first.json()["subjects"]] == ids[:0:-1]
    assert first.headers["Link"].endswith('rel="next"')
    path = first.headers["Link"].split(">")[0].lstrip("<")
    second = await client.get(path)
    assert [subject["id"] for subject in second.json()["subjects"]] == ids[:1]
    assert (second.json()["next_cursor"], "Link" in second.headers) == (None, False)


async def test_a_cursor_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/subjects", params={"cursor": "???"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "?cursor")


async def test_a_subject_can_be_renamed(client: httpx.AsyncClient) -> None:
    path = (await submit(client, photo_bytes(), name="Ada")).json()["subject"]["links"]["self"]
    assert (await client.patch(path, json={"name": "Grace"})).json()["name"] == "Grace"
    assert (await client.patch(path, json={"name": None})).json()["name"] is None
    assert (await client.patch(path, json={"title": "Dr"})).status_code == 422


async def test_anothers_subject_looks_like_an_unknown_one(client: httpx.AsyncClient, make_client: MakeClient) -> None:
    path = (await submit(client, photo_bytes())).json()["subject"]["links"]["self"]
    theirs, unknown = await make_client().get(path), await make_client().get(UNKNOWN)
    assert theirs.status_code == unknown.status_code == 404
    differing = {"request_id", "instance"}
    assert {k: v for k, v in theirs.json().items() if k not in differing} == {
        k: v for k, v in unknown.json().items() if k not in differing
    }


async def test_erasing_takes_the_subject_away_at_once_and_leaves_the_rest_to_a_job(
    client: httpx.AsyncClient, db: Session
) -> None:
    created = (await submit(client, photo_bytes())).json()
    answer = await client.delete(created["subject"]["links"]["self"])

    assert (answer.status_code, answer.json()["kind"]) == (202, "erase")
    assert (await client.get(created["subject"]["links"]["self"])).status_code == 404
    assert (await client.get(created["job"]["links"]["self"])).json()["status"] == "canceled"
    receipt = db.scalars(select(ErasureReceipt)).one()
    assert receipt.subject_id == decode_id(SUBJECT, created["subject"]["id"])
    assert db.scalars(select(Job.status).where(Job.kind == JobKind.ERASE)).all() == [JobStatus.QUEUED]
    assert (await client.post(f"{answer.json()['links']['self']}/cancel")).json()["code"] == "not_cancelable"
    assert (await client.delete(created["subject"]["links"]["self"])).status_code == 404
