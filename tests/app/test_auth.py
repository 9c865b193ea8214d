from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update
from sqlalchemy.orm import Session

from core.accounts import Scope, hash_key
from core.tables import ApiKey
from tests.app.conftest import MakeClient

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer hdb_live_guess", "Basic abc", f"Bearer {'x' * 9999}"]
)
async def test_without_a_key_of_ours_nothing_is_told(client: httpx.AsyncClient, header: str) -> None:
    answer = await client.get("/v1/jobs", headers={"Authorization": header})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("change", [{"revoked_at": LONG_AGO}, {"expires_at": LONG_AGO}])
async def test_a_key_that_has_ended_is_refused(
    client: httpx.AsyncClient, db: Session, change: dict[str, object]
) -> None:
    assert (await client.get("/v1/jobs")).status_code == 200
    db.execute(update(ApiKey).values(**change))
    db.commit()
    assert (await client.get("/v1/jobs")).status_code == 401


async def test_the_database_has_only_hashes(client: httpx.AsyncClient, db: Session) -> None:
    key = client.headers["Authorization"].removeprefix("Bearer ")
    row = db.query(ApiKey).one()
    assert row.sha256 == hash_key(key)
    assert not any(key in str(value) for value in vars(row).values())


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/subjects", Scope.SUBJECTS_WRITE),
        ("GET", "/v1/subjects", Scope.READ),
        ("PATCH", "/v1/subjects/sub_01m8398gmne0a84bdbs8wn5qd6", Scope.SUBJECTS_WRITE),
        ("DELETE", "/v1/subjects/sub_01m8398gmne0a84bdbs8wn5qd6", Scope.SUBJECTS_WRITE),
        ("POST", "/v1/subjects/sub_01m8398gmne0a84bdbs8wn5qd6/generations", Scope.GENERATIONS_WRITE),
        ("GET", "/v1/webhook-endpoints", Scope.ADMIN),
    ],
)
async def test_each_scope_opens_its_doors_only(make_client: MakeClient, method: str, path: str, scope: Scope) -> None:
    others = [other for other in Scope if other not in {scope, Scope.ADMIN}]
    refused = await make_client(scopes=others).request(method, path, json={})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await make_client(scopes=[scope]).request(method, path, json={})).status_code != 403
    assert (await make_client(scopes=[Scope.ADMIN]).request(method, path, json={})).status_code != 403


async def test_strangers_bodies_are_not_read(service: FastAPI) -> None:
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"x"

    async with httpx.AsyncClient(transport=httpx.ASGITransport(service), base_url="http://hdb.test") as stranger:
        answer = await stranger.post("/v1/subjects", content=body(), headers={"Content-Type": "multipart/form-data"})
    assert (answer.status_code, read) == (401, False)
