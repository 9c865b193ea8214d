"""Every route of the OpenAPI document, with another account's ids and without each scope."""

from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session

from app.main import create_app
from core.accounts import Scope
from core.ids import new_id
from core.settings import Settings
from core.storage import ObjectStore
from tests.app.conftest import MakeClient, submit
from tests.app.worker_role import personalize
from tests.factories import photo_bytes

DOCUMENT = create_app(Settings()).openapi()
OPERATIONS = [
    (operation["operationId"], method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if operation.get("security")
]
IDS = [operation[:3] for operation in OPERATIONS if "{" in operation[2]]
BODIES: dict[str, dict[str, Any]] = {
    "create_generation": {"prompt": "a"},
    "rename_subject": {"name": "a"},
    "rotate_webhook_secret": {"overlap_seconds": 1},
}
UNKNOWN = {
    "subject_id": "sub_01m8398gmne0a84bdbs8wn5qd6",
    "job_id": "job_01m8398gmne0a84bdbs8wn5qd6",
    "generation_id": "gen_01m8398gmne0a84bdbs8wn5qd6",
    "endpoint_id": "whk_01m8398gmne0a84bdbs8wn5qd6",
    "delivery_id": "dlv_01m8398gmne0a84bdbs8wn5qd6",
}
DIFFERING = {"request_id", "instance"}


@pytest.fixture
async def theirs(make_client: MakeClient, db: Session, store: ObjectStore) -> dict[str, str]:
    """Ids of everything that an account can have."""
    owner = make_client(scopes=[Scope.ADMIN])
    subject = (await submit(owner, photo_bytes())).json()["subject"]
    personalize(db, store)
    drawn = (await owner.post(f"{subject['links']['self']}/generations", json={"prompt": "a"})).json()
    hook = (await owner.post("/v1/webhook-endpoints", json={"url": "https://example.com/hook"})).json()
    told = (await owner.post(f"/v1/webhook-endpoints/{hook['id']}/test")).json()
    return {
        "subject_id": subject["id"],
        "job_id": drawn["job"]["id"],
        "generation_id": drawn["generation"]["id"],
        "endpoint_id": hook["id"],
        "delivery_id": told["id"],
    }


async def test_anothers_ids_answer_like_unknown_ones(make_client: MakeClient, theirs: dict[str, str]) -> None:
    stranger = make_client(scopes=[Scope.ADMIN])
    for name, method, path in IDS:
        body = BODIES.get(name)
        other, unknown = [await stranger.request(method, path.format(**ids), json=body) for ids in (theirs, UNKNOWN)]
        assert (other.status_code, unknown.status_code) == (404, 404), name
        told, expected = ({k: v for k, v in each.json().items() if k not in DIFFERING} for each in (other, unknown))
        assert told == expected, name


async def test_each_route_wants_the_scope_that_it_names(make_client: MakeClient) -> None:
    clients = {
        scope: make_client(scopes=[other for other in Scope if other not in {scope, Scope.ADMIN}]) for scope in Scope
    }
    for name, method, path, operation in OPERATIONS:
        wanted = {scope for entry in operation["security"] for scopes in entry.values() for scope in scopes}
        assert wanted or name == "cancel_job", name
        for scope in wanted:
            answer = await clients[Scope(scope)].request(method, path.format(**UNKNOWN), json=BODIES.get(name, {}))
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), name


async def test_nothing_but_health_answers_without_a_key(client: httpx.AsyncClient) -> None:
    secured = {path for _, _, path, _ in OPERATIONS}
    assert set(DOCUMENT["paths"]) - secured == {"/livez", "/readyz", "/metrics"}
    for name, method, path, _ in OPERATIONS:
        answer = await client.request(method, path.format(**UNKNOWN), headers={"Authorization": f"Bearer {new_id()}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), name


async def test_strangers_are_asked_for_a_key_before_anything_else(make_client: MakeClient) -> None:
    stranger = make_client()
    del stranger.headers["Authorization"]
    for name, method, path in IDS:
        for ids in (UNKNOWN, dict.fromkeys(UNKNOWN, "nonsense")):
            answer = await stranger.request(method, path.format(**ids), json=BODIES.get(name))
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), name
