from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session

from app.limits import RequestLimiter
from core.ids import new_id
from core.storage import ObjectStore
from tests.app.conftest import MakeClient, submit
from tests.app.worker_role import personalize
from tests.factories import photo_bytes
from tests.worker.conftest import Bench


@pytest.fixture
def limits(service: FastAPI) -> Iterator[dict[str, Any]]:
    """Settings to change for one test; a fresh minute."""
    usual, changed = service.state.parts, {}

    class Changing(dict[str, Any]):
        def __setitem__(self, name: str, value: Any) -> None:  # noqa: ANN401 - any setting
            changed[name] = value
            settings = usual.settings.model_copy(update=changed)
            limiter = RequestLimiter(per_minute=settings.requests_per_minute)
            service.state.parts = replace(usual, settings=settings, limiter=limiter)

    yield Changing()
    service.state.parts = usual


async def test_every_answer_says_what_is_left(client: httpx.AsyncClient, limits: dict[str, Any]) -> None:
    limits["requests_per_minute"] = 10
    first, second = [await client.get("/v1/jobs") for _ in range(2)]
    assert first.headers["RateLimit-Policy"] == '"requests";q=10;w=60'
    assert first.headers["RateLimit"].startswith('"requests";r=9;t=')
    assert second.headers["RateLimit"].startswith('"requests";r=8;t=')


async def test_too_many_requests_wait_for_the_next_minute(
    client: httpx.AsyncClient, make_client: MakeClient, limits: dict[str, Any]
) -> None:
    limits["requests_per_minute"] = 2
    answers = [await client.get("/v1/jobs") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "rate_limited"
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 60
    assert answers[2].headers["RateLimit"].startswith('"requests";r=0;t=')
    assert (await make_client().get("/v1/jobs")).status_code == 200


async def test_polls_without_news_cost_nothing(client: httpx.AsyncClient, limits: dict[str, Any]) -> None:
    path = (await submit(client, photo_bytes())).headers["Location"]
    limits["requests_per_minute"] = 3
    seen = {"If-None-Match": (await client.get(path)).headers["ETag"]}
    assert {(await client.get(path, headers=seen)).status_code for _ in range(5)} == {304}
    assert (await client.get(path)).headers["RateLimit"].startswith('"requests";r=1;t=')


async def test_an_account_has_only_so_many_unfinished_jobs(
    client: httpx.AsyncClient, make_client: MakeClient, limits: dict[str, Any]
) -> None:
    limits["max_account_jobs"] = 1
    path = (await submit(client, photo_bytes())).headers["Location"]
    refused = await submit(client, photo_bytes())
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
    assert (await submit(make_client(), photo_bytes())).status_code == 202
    await client.post(f"{path}/cancel")
    assert (await submit(client, photo_bytes())).status_code == 202


async def test_a_full_queue_says_so(client: httpx.AsyncClient, make_client: MakeClient, limits: dict[str, Any]) -> None:
    limits["max_queued_jobs"] = 1
    await submit(client, photo_bytes())
    refused = await submit(make_client(), photo_bytes())
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert "Retry-After" in refused.headers


async def test_an_account_has_only_so_many_pictures_a_day(
    client: httpx.AsyncClient, db: Session, store: ObjectStore, limits: dict[str, Any]
) -> None:
    limits["max_account_images"] = 5
    subject = (await submit(client, photo_bytes())).json()["subject"]
    personalize(db, store)
    path = f"{subject['links']['self']}/generations"
    asked = [await client.post(path, json={"prompt": "a", "count": count}) for count in (3, 3, 2, 1)]
    assert [answer.status_code for answer in asked] == [202, 429, 202, 429]
    assert asked[1].json()["code"] == "too_many_images"


async def test_an_erasure_gives_no_pictures_back(
    client: httpx.AsyncClient, db: Session, store: ObjectStore, bench: Bench, limits: dict[str, Any]
) -> None:
    limits["max_account_images"] = 3
    first, second = [(await submit(client, photo_bytes())).json()["subject"]["links"]["self"] for _ in range(2)]
    for _ in range(2):
        personalize(db, store)
    assert (await client.post(f"{first}/generations", json={"prompt": "a", "count": 3})).status_code == 202
    bench.generating().run_one("mini")
    assert (await client.delete(first)).status_code == 202
    bench.erasing().run_one("mini")
    assert (await client.post(f"{second}/generations", json={"prompt": "a"})).json()["code"] == "too_many_images"


def test_a_minute_begins_anew_and_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("app.limits.time.monotonic", lambda: now)
    limiter, key = RequestLimiter(per_minute=1), new_id()
    limiter.take(limiter.quota(key))
    now += 59
    assert limiter.quota(key).used == 1
    now += 1
    assert limiter.quota(key).used == 0
