"""A subject of several photos: sent together or uploaded before, learned from together, deleted together."""

import io
from typing import Any

import httpx
import pytest
from PIL import Image
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.object_keys import subject_prefix
from core.storage import ObjectStore
from core.tables import Job, Subject, Upload
from hyperdreambooth.errors import NoFace
from tests.app.conftest import submit
from tests.app.test_uploads import new_upload, put
from tests.factories import photo_bytes
from tests.worker.conftest import Bench

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
PHOTOS = [photo_bytes(colour) for colour in (RED, GREEN, BLUE)]


def stored(db: Session, store: ObjectStore) -> list[Any]:
    """The colours of the subject's photos, in order."""
    keys = db.scalars(select(Subject.photo_keys)).one()
    return [Image.open(io.BytesIO(store.get(key))).getpixel((5, 5)) for key in keys]


async def test_photos_that_come_together_are_stored_in_order(
    client: httpx.AsyncClient, db: Session, store: ObjectStore
) -> None:
    answer = await submit(client, *PHOTOS)
    assert (answer.status_code, answer.json()["subject"]["photo_kept"]) == (202, True)
    assert stored(db, store) == [RED, GREEN, BLUE]


async def test_photos_that_were_uploaded_before_are_stored_in_order(
    client: httpx.AsyncClient, db: Session, store: ObjectStore
) -> None:
    uploads = [await new_upload(client, size=len(photo)) for photo in PHOTOS]
    for upload, photo in zip(uploads, PHOTOS, strict=True):
        await put(upload, photo)
    asked = {"upload_ids": [upload["id"] for upload in uploads], "consent": "self"}
    assert (await client.post("/v1/subjects", json=asked)).status_code == 202
    assert stored(db, store) == [RED, GREEN, BLUE]
    assert db.scalar(select(func.count()).select_from(Upload).where(Upload.used_at.is_(None))) == 0


async def test_the_worker_learns_from_all_of_them_and_then_they_go(
    client: httpx.AsyncClient, db: Session, store: ObjectStore, bench: Bench
) -> None:
    seen: list[list[Any]] = []

    def note(request: Any) -> None:  # noqa: ANN401 - either kind of request
        seen.append([photo.getpixel((5, 5)) for photo in request.photos])

    bench.engine.refuse = note
    subject = (await submit(client, *PHOTOS)).json()["subject"]
    bench.personalizing().run_one("mini")
    now = (await client.get(subject["links"]["self"])).json()
    assert (seen, now["status"], now["photo_kept"]) == ([[RED, GREEN, BLUE]], "ready", False)
    left = store.keys(subject_prefix(db.scalars(select(Subject.id)).one()))
    assert [key for key in left if "/photos/" in key] == []


async def test_photos_that_are_kept_stay_until_the_subject_is_erased(
    client: httpx.AsyncClient, db: Session, store: ObjectStore, bench: Bench
) -> None:
    subject = (await submit(client, *PHOTOS, keep_photo="true")).json()["subject"]
    bench.personalizing().run_one("mini")
    assert (await client.get(subject["links"]["self"])).json()["photo_kept"] is True
    assert stored(db, store) == [RED, GREEN, BLUE]
    erased = (await client.delete(subject["links"]["self"])).json()
    bench.erasing().run_one("mini")
    receipt = (await client.get(erased["links"]["self"])).json()["result"]["receipt"]
    assert receipt["objects"] == 4  # three photos and the weights
    db.expire_all()
    assert db.scalars(select(Subject.photo_keys)).one() == []


async def test_a_face_problem_names_its_photo(client: httpx.AsyncClient, bench: Bench) -> None:
    error = NoFace("no face to be seen")
    error.photo = 2
    bench.engine.refuse = lambda request: error
    job = (await submit(client, *PHOTOS)).json()["job"]
    bench.personalizing().run_one("mini")
    told = (await client.get(job["links"]["self"])).json()["error"]
    assert (told["code"], told["errors"]) == ("no_face", [{"pointer": "#/photo/2", "detail": "no face to be seen"}])


async def test_a_photo_that_cannot_be_used_is_pointed_at_and_none_is_stored(
    client: httpx.AsyncClient, db: Session
) -> None:
    answer = await submit(client, PHOTOS[0], b"%PDF-1.7", PHOTOS[2])
    assert (answer.status_code, answer.json()["code"]) == (415, "photo_unsupported")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["#/photo/1"]
    assert db.scalar(select(func.count()).select_from(Subject)) == 0


async def test_an_upload_that_cannot_be_used_is_pointed_at(client: httpx.AsyncClient, db: Session) -> None:
    ready, missing = [await new_upload(client, size=len(PHOTOS[0])) for _ in range(2)]
    await put(ready, PHOTOS[0])
    for second, status, code in (
        (missing["id"], 409, "upload_missing"),
        ("upl_01m8398gmne0a84bdbs8wn5qd6", 404, "not_found"),
        ("nonsense", 404, "not_found"),
    ):
        asked = {"upload_ids": [ready["id"], second], "consent": "self"}
        answer = await client.post("/v1/subjects", json=asked)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert [error["pointer"] for error in answer.json()["errors"]] == ["#/upload_ids/1"]
    assert db.scalar(select(func.count()).select_from(Job)) == 0


@pytest.mark.parametrize("count", [0, 9])
async def test_so_many_photos_are_refused(client: httpx.AsyncClient, count: int) -> None:
    answer = await client.post(
        "/v1/subjects", json={"upload_ids": [f"upl_{number}" for number in range(count)], "consent": "self"}
    )
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/upload_ids")


async def test_nine_files_are_too_many(client: httpx.AsyncClient) -> None:
    answer = await submit(client, *[PHOTOS[0]] * 9)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "8" in answer.json()["errors"][0]["detail"]


async def test_an_upload_named_twice_is_one_photo_too_few(client: httpx.AsyncClient) -> None:
    upload = (await new_upload(client))["id"]
    answer = await client.post("/v1/subjects", json={"upload_ids": [upload, upload], "consent": "self"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/upload_ids")


async def test_the_order_of_photos_is_part_of_the_request(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "k"}
    first, again = [await submit(client, *PHOTOS, headers=key) for _ in range(2)]
    assert again.headers["Location"] == first.headers["Location"]
    other = await submit(client, *reversed(PHOTOS), headers=key)
    assert other.json()["code"] == "idempotency_mismatch"
