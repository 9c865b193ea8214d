import asyncio
import hashlib

import httpx
import pytest
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from app.weights.ranges import requested_range
from core.errors import RangeNotSatisfiable
from core.storage import ObjectStore
from core.tables import Export
from tests.app.conftest import submit
from tests.app.worker_role import WEIGHTS, fold, personalize
from tests.factories import photo_bytes


@pytest.fixture
async def path(client: httpx.AsyncClient, db: Session, store: ObjectStore) -> str:
    """Of a subject's weights."""
    subject = (await submit(client, photo_bytes())).json()["subject"]
    personalize(db, store)
    return f"{subject['links']['self']}/weights"


async def test_the_file_comes_as_it_was_stored(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, params={"format": "lidb"})
    assert answer.content == WEIGHTS
    assert answer.headers["ETag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    name = path.split("/")[3]
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}.lidb.safetensors"'


async def test_who_has_it_already_gets_nothing(client: httpx.AsyncClient, path: str) -> None:
    etag = (await client.get(path)).headers["ETag"]
    answer = await client.get(path, headers={"If-None-Match": f'"other", W/{etag}'})
    assert (answer.status_code, answer.content) == (304, b"")


async def test_a_broken_download_goes_on_where_it_stopped(client: httpx.AsyncClient, path: str) -> None:
    whole = await client.get(path)
    rest = await client.get(path, headers={"Range": "bytes=1000-", "If-Range": whole.headers["ETag"]})
    assert (rest.status_code, rest.content) == (206, WEIGHTS[1000:])
    assert rest.headers["Content-Range"] == "bytes 1000-1023/1024"
    changed = await client.get(path, headers={"Range": "bytes=1000-", "If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, WEIGHTS)


async def test_a_range_behind_the_end_is_refused(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"Range": "bytes=5000-"})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == "bytes */1024"


async def test_there_are_no_weights_before_the_job_has_succeeded(client: httpx.AsyncClient) -> None:
    subject = (await submit(client, photo_bytes())).json()["subject"]
    answer = await client.get(f"{subject['links']['self']}/weights")
    assert (answer.status_code, answer.json()["code"]) == (409, "subject_not_ready")


async def test_a_format_that_we_do_not_write_is_refused(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, params={"format": "pickle"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "?format")


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
async def test_other_formats_are_made_on_request(
    client: httpx.AsyncClient, db: Session, store: ObjectStore, path: str, form: str
) -> None:
    first, again = [await client.get(path, params={"format": form}) for _ in range(2)]
    assert (first.status_code, first.json()["kind"]) == (202, "export")
    assert again.headers["Location"] == first.headers["Location"] == first.json()["links"]["self"]

    fold(db, store, b"folded")
    done = (await client.get(first.headers["Location"])).json()
    assert (done["status"], done["result"]["weights"]) == ("succeeded", f"{path}?format={form}")
    answer = await client.get(done["result"]["weights"])
    assert (answer.status_code, answer.content) == (200, b"folded")
    assert f".{form}.safetensors" in answer.headers["Content-Disposition"]

    db.execute(update(Export).values(expires_at=func.now()))
    db.commit()
    assert (await client.get(path, params={"format": form})).status_code == 202


async def test_both_formats_can_be_made_at_once(client: httpx.AsyncClient, path: str) -> None:
    asked = [client.get(path, params={"format": form}) for form in ("kohya", "kohya", "diffusers")]
    kohya, same, diffusers = [answer.headers["Location"] for answer in await asyncio.gather(*asked)]
    assert kohya == same != diffusers


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=90-", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        ("bytes=0-1000", (0, 100)),
        ("bytes=9-3", None),
        ("bytes=0-1,5-6", None),
        ("pages=1-2", None),
        ("bytes=-", None),
        (None, None),
    ],
)
def test_a_range_is_read_as_rfc_9110_says(header: str | None, expected: tuple[int, int] | None) -> None:
    assert requested_range(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=-0", "bytes=100-200"])
def test_an_empty_range_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        requested_range(header, 100)
