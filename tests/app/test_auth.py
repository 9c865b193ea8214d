from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update
from sqlalchemy.orm import Session

from core.accounts import Scope, create_key, hash_key
from core.settings import Environment, Settings
from core.tables import Account, ApiKey
from tests.app.conftest import MakeClient
from tests.app.test_health import another_service, closed_port

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer  ,", "Bearer hdb_live_guess", "Basic abc", f"Bearer {'x' * 9999}"]
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


async def test_keys_of_live_and_test_deployments_are_not_mistaken_for_each_other(
    client: httpx.AsyncClient, settings: Settings, account: Account, db: Session
) -> None:
    _, key = create_key(db, db.merge(account), scopes=[Scope.ADMIN], actor="test", environment=Environment.TEST)
    db.commit()
    live, test = client.headers["Authorization"], f"Bearer {key}"
    job = "/v1/jobs/job_01m8398gmne0a84bdbs8wn5qd6"  # read together with the key
    async with another_service(settings, environment="test") as for_tests:
        token = (await for_tests.post("/v1/tokens", json={}, headers={"Authorization": test})).json()["token"]
        assert token.startswith("hdb_tok_test_")
        for sent in (test, f"Bearer {token}"):
            answers = [await each.get(job, headers={"Authorization": sent}) for each in (for_tests, client)]
            assert [answer.status_code for answer in answers] == [404, 401]
        refused = await for_tests.get("/v1/jobs", headers={"Authorization": live})
    unknown = await client.get("/v1/jobs", headers={"Authorization": "Bearer hdb_live_guess"})
    assert (refused.status_code, refused.json()["detail"]) == (401, unknown.json()["detail"])


async def test_keys_of_the_other_kind_are_not_looked_up(client: httpx.AsyncClient, settings: Settings) -> None:
    nowhere = f"postgresql+psycopg://a:b@127.0.0.1:{closed_port()}/c"
    async with another_service(settings, database_url=nowhere, environment="test") as without:
        for key, status in {"hdb_live_x": 401, "hdb_tok_live_x": 401, "hdb_test_x": 503}.items():
            answer = await without.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == status


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
