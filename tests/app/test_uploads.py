import io
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.subjects import service
from core.storage import ObjectStore
from core.tables import Job, Subject, Upload
from tests.app.conftest import MakeClient
from tests.factories import photo_bytes

PHOTO = photo_bytes()
CONSENT = {"consent": "self"}
Json = dict[str, Any]


async def new_upload(client: httpx.AsyncClient, size: int = len(PHOTO), **given: object) -> Json:
    """A place for a photo."""
    answer = await client.post("/v1/uploads", json={"size": size} | given)
    assert answer.status_code == 201
    upload: Json = answer.json()
    return upload


async def put(upload: Json, photo: bytes = PHOTO) -> int:
    """As iOS does in the background."""
    async with httpx.AsyncClient() as phone:
        sent = await phone.put(upload["put"]["url"], content=photo, headers=upload["put"]["headers"])
    return sent.status_code


async def post(upload: Json, photo: bytes = PHOTO, **changed: str) -> int:
    """As a page does."""
    async with httpx.AsyncClient() as page:
        sent = await page.post(upload["post"]["url"], data=upload["post"]["fields"] | changed, files={"file": photo})
    return sent.status_code


@pytest.mark.parametrize("way", [put, post])
async def test_an_uploaded_photo_becomes_a_subject(
    client: httpx.AsyncClient, db: Session, store: ObjectStore, way: Callable[[Json], Awaitable[int]]
) -> None:
    upload = await new_upload(client)
    assert await way(upload) in {200, 201, 204}

    made = await client.post("/v1/subjects", json={"upload_ids": [upload["id"]], "name": "Ada"} | CONSENT)
    assert (made.status_code, made.json()["subject"]["name"]) == (202, "Ada")
    (key,) = db.scalars(select(Subject.photo_keys)).one()
    assert Image.open(io.BytesIO(store.get(key))).size == (64, 64)


async def test_an_upload_is_used_once_and_a_repeated_request_is_no_second_use(
    client: httpx.AsyncClient, db: Session
) -> None:
    upload = await new_upload(client)
    await put(upload)
    asked = {"upload_ids": [upload["id"]]} | CONSENT
    first, again = [await client.post("/v1/subjects", json=asked, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    other = await client.post("/v1/subjects", json=asked)
    assert again.headers["Location"] == first.headers["Location"]
    assert (other.status_code, other.json()["code"]) == (409, "upload_used")
    assert db.query(Job).count() == 1


async def test_what_phones_sent_is_left_to_the_sweeper_at_once(client: httpx.AsyncClient, db: Session) -> None:
    upload = await new_upload(client)
    await put(upload)
    await client.post("/v1/subjects", json={"upload_ids": [upload["id"]]} | CONSENT)
    row = db.scalars(select(Upload)).one()
    assert row.used_at is not None
    assert row.expires_at <= row.used_at


async def test_what_is_put_there_after_its_use_changes_nothing(
    client: httpx.AsyncClient, db: Session, store: ObjectStore
) -> None:
    upload = await new_upload(client)
    await put(upload)
    await client.post("/v1/subjects", json={"upload_ids": [upload["id"]]} | CONSENT)
    (key,) = db.scalars(select(Subject.photo_keys)).one()
    used = store.get(key)
    assert await put(upload, bytes(len(PHOTO))) == 200
    assert store.get(key) == used


async def test_nothing_uploaded_yet_can_be_repeated(client: httpx.AsyncClient) -> None:
    upload = await new_upload(client)
    asked = {"upload_ids": [upload["id"]]} | CONSENT
    early = await client.post("/v1/subjects", json=asked)
    assert (early.status_code, early.json()["code"], early.json()["retryable"]) == (409, "upload_missing", True)
    await put(upload)
    assert (await client.post("/v1/subjects", json=asked)).status_code == 202


async def test_what_is_no_photo_may_be_uploaded_but_not_used(client: httpx.AsyncClient, db: Session) -> None:
    upload = await new_upload(client, size=4)
    await put(upload, b"%PDF")
    answer = await client.post("/v1/subjects", json={"upload_ids": [upload["id"]]} | CONSENT)
    assert (answer.status_code, answer.json()["code"]) == (415, "photo_unsupported")
    assert db.scalars(select(Upload.used_at)).one() is None


async def test_the_bucket_holds_phones_to_what_was_signed(client: httpx.AsyncClient) -> None:
    upload = await new_upload(client)
    assert await post(upload, key="subjects/somebody/photo") == 403
    upload["post"]["fields"]["Content-Type"] = "text/html"
    assert await post(upload) == 403
    upload["post"]["fields"]["Content-Type"] = "image/png"
    assert await post(upload, bytes(20_000_001)) in {400, 413}
    upload["put"]["headers"] = {"Content-Type": "image/jpeg", "Content-Length": str(len(PHOTO) + 1)}
    assert await put(upload, PHOTO + b"x") == 403


async def test_an_upload_is_its_accounts_alone(client: httpx.AsyncClient, make_client: MakeClient) -> None:
    upload = await new_upload(client)
    await put(upload)
    stranger = make_client()
    for upload_id in (upload["id"], "upl_01m8398gmne0a84bdbs8wn5qd6", "nonsense"):
        answer = await stranger.post("/v1/subjects", json={"upload_ids": [upload_id]} | CONSENT)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"size": 20_000_001}, 413, "photo_too_large"),
        ({"size": 0}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
        ({"size": 9, "content_type": "text/html"}, 422, "invalid_request"),
    ],
)
async def test_a_wrong_wish_is_refused(client: httpx.AsyncClient, asked: object, status: int, code: str) -> None:
    answer = await client.post("/v1/uploads", json=asked)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"upload_ids": ["upl_01m8398gmne0a84bdbs8wn5qd6"]}, "consent_required"),
        ({"upload_ids": []} | CONSENT, "invalid_request"),
        (CONSENT, "invalid_request"),
        ([], "invalid_request"),
    ],
)
async def test_a_wrong_body_is_refused(client: httpx.AsyncClient, asked: object, code: str) -> None:
    answer = await client.post("/v1/subjects", json=asked)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_a_place_that_was_used_is_given_out_anew(client: httpx.AsyncClient) -> None:
    asked = {"size": len(PHOTO), "content_type": "image/png"}
    key = {"Idempotency-Key": "k"}
    first, again = [(await client.post("/v1/uploads", json=asked, headers=key)).json() for _ in range(2)]
    await put(again)
    await client.post("/v1/subjects", json={"upload_ids": [first["id"]]} | CONSENT)
    anew = (await client.post("/v1/uploads", json=asked, headers=key)).json()
    assert again["id"] == first["id"] != anew["id"]


async def test_a_repetition_that_overtakes_the_first_request_gets_its_answer(
    client: httpx.AsyncClient, db: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await new_upload(client)
    await put(upload)
    asked, key = {"upload_ids": [upload["id"]]} | CONSENT, {"Idempotency-Key": "k"}
    read_photos, overtaken = service._read_photos, list[httpx.Response]()

    async def slowly(*given: Any) -> Any:  # noqa: ANN401 - whatever the original takes
        if not overtaken:
            overtaken.append(httpx.Response(100))
            overtaken.append(await client.post("/v1/subjects", json=asked, headers=key))
        return await read_photos(*given)

    monkeypatch.setattr(service, "_read_photos", slowly)
    late = await client.post("/v1/subjects", json=asked, headers=key)
    assert (late.status_code, late.headers["Location"]) == (202, overtaken[1].headers["Location"])
    assert db.query(Job).count() == 1
