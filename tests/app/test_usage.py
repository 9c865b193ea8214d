from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from core.storage import ObjectStore
from core.tables import Job
from tests.app.conftest import MakeClient, submit
from tests.app.worker_role import WEIGHTS, draw, personalize
from tests.factories import photo_bytes


async def test_a_day_counts_what_was_asked_and_made(
    client: httpx.AsyncClient, make_client: MakeClient, db: Session, store: ObjectStore
) -> None:
    subject = (await submit(client, photo_bytes())).json()["subject"]
    personalize(db, store)
    await client.post(f"{subject['links']['self']}/generations", json={"prompt": "a", "count": 3})
    draw(db, store, b"12345")
    db.execute(update(Job).values(finished_at=text("started_at + interval '2 seconds'")))
    db.commit()

    today = datetime.now(UTC).date().isoformat()
    expected = {"jobs": {"personalize": 1, "generate": 1}, "seconds": 4.0, "images": 3, "bytes": len(WEIGHTS) + 15}
    assert (await client.get("/v1/usage")).json() == {"days": [{"day": today} | expected]}
    assert (await make_client().get("/v1/usage")).json() == {"days": []}


async def test_days_can_be_chosen(client: httpx.AsyncClient) -> None:
    await submit(client, photo_bytes())
    today = datetime.now(UTC).date()
    yesterday = today - timedelta(days=1)
    assert len((await client.get("/v1/usage", params={"since": f"{today}", "until": f"{today}"})).json()["days"]) == 1
    assert (await client.get("/v1/usage", params={"until": f"{yesterday}"})).json()["days"] == []


@pytest.mark.parametrize(
    "asked", [{"since": "2026-02-01", "until": "2026-01-01"}, {"since": "2020-01-01"}, {"since": "soon"}]
)
async def test_an_impossible_span_is_refused(client: httpx.AsyncClient, asked: dict[str, str]) -> None:
    assert (await client.get("/v1/usage", params=asked)).json()["code"] == "invalid_request"


async def test_the_calendars_ends_are_no_accident(client: httpx.AsyncClient) -> None:
    for asked in ({"until": "0001-01-01"}, {"since": "9999-12-31", "until": "9999-12-31"}):
        assert (await client.get("/v1/usage", params=asked)).status_code in {200, 422}
