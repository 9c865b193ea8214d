import httpx
import pytest
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from core.accounts import Scope
from core.tables import ApiKey
from tests.app.conftest import TLS, MakeClient, submit
from tests.factories import photo_bytes


async def phone_with(client: httpx.AsyncClient, **asked: object) -> httpx.AsyncClient:
    """A phone that was given a token by its backend."""
    made = await client.post("/v1/tokens", json=asked)
    assert made.status_code == 201
    headers = {"Authorization": f"Bearer {made.json()['token']}"}
    return httpx.AsyncClient(transport=client._transport, base_url=client.base_url, headers=headers)


async def test_a_token_makes_one_subject_and_sees_no_other(client: httpx.AsyncClient) -> None:
    await submit(client, photo_bytes())
    phone = await phone_with(client)

    assert (await phone.get("/v1/subjects")).json()["subjects"] == []
    made = await submit(phone, photo_bytes(), headers={"Prefer": "wait=1"})
    assert made.status_code == 202
    subject = made.json()["subject"]
    assert [each["id"] for each in (await phone.get("/v1/subjects")).json()["subjects"]] == [subject["id"]]
    assert (await phone.get(made.headers["Location"])).status_code == 200
    second = await submit(phone, photo_bytes())
    assert (second.status_code, second.json()["code"]) == (403, "forbidden")
    assert len((await client.get("/v1/subjects")).json()["subjects"]) == 2


async def test_a_token_uploads_in_the_background_too(client: httpx.AsyncClient) -> None:
    phone, photo = await phone_with(client), photo_bytes()
    upload = (await phone.post("/v1/uploads", json={"size": len(photo), "content_type": "image/png"})).json()
    async with httpx.AsyncClient(verify=TLS) as background:
        await background.put(upload["put"]["url"], content=photo, headers=upload["put"]["headers"])
    made = await phone.post("/v1/subjects", json={"upload_ids": [upload["id"]], "consent": "self"})
    assert made.status_code == 202
    assert (await phone.get(made.headers["Location"])).json()["status"] == "queued"


async def test_a_phone_that_repeats_its_request_gets_the_same_subject(client: httpx.AsyncClient) -> None:
    phone = await phone_with(client)
    key = {"Idempotency-Key": "on a train"}
    first, again = [await submit(phone, photo_bytes(), headers=key) for _ in range(2)]
    assert again.json()["subject"]["id"] == first.json()["subject"]["id"]


async def test_a_token_for_a_subject_only_watches(client: httpx.AsyncClient) -> None:
    made = (await submit(client, photo_bytes())).json()
    other = (await submit(client, photo_bytes())).json()
    phone = await phone_with(client, subject_id=made["subject"]["id"])
    assert (await phone.get(made["job"]["links"]["self"])).status_code == 200
    assert (await phone.get(other["job"]["links"]["self"])).status_code == 404
    assert (await submit(phone, photo_bytes())).status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/subjects/{id}"),
        ("PATCH", "/v1/subjects/{id}"),
        ("POST", "/v1/tokens"),
        ("GET", "/v1/usage"),
        ("POST", "/v1/subjects/{id}/generations"),
        ("GET", "/v1/webhook-endpoints"),
    ],
)
async def test_a_token_does_nothing_else(client: httpx.AsyncClient, method: str, path: str) -> None:
    made = (await submit(client, photo_bytes())).json()["subject"]
    phone = await phone_with(client, subject_id=made["id"])
    answer = await phone.request(method, path.format(id=made["id"]), json={"name": "x"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_a_token_ends(client: httpx.AsyncClient, db: Session) -> None:
    phone = await phone_with(client, seconds=60)
    assert (await phone.get("/v1/jobs")).status_code == 200
    ends = text("expires_at - interval '61 seconds'")
    db.execute(update(ApiKey).where(ApiKey.one_subject).values(expires_at=ends))
    db.commit()
    assert (await phone.get("/v1/jobs")).status_code == 401


async def test_a_token_for_anothers_subject_is_not_made(client: httpx.AsyncClient, make_client: MakeClient) -> None:
    theirs = (await submit(make_client(), photo_bytes())).json()["subject"]["id"]
    for subject_id in (theirs, "sub_01m8398gmne0a84bdbs8wn5qd6", "nonsense"):
        answer = await client.post("/v1/tokens", json={"subject_id": subject_id})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await client.post("/v1/tokens", json={"seconds": 901})).status_code == 422


@pytest.mark.parametrize("scopes", [[Scope.SUBJECTS_WRITE], [Scope.READ]])
async def test_nobody_hands_on_more_than_they_may_do(make_client: MakeClient, scopes: list[Scope]) -> None:
    answer = await make_client(scopes=scopes).post("/v1/tokens", json={})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_a_renewed_token_watches_what_the_first_one_made_and_makes_no_other(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "on a train"}
    made = await submit(await phone_with(client), photo_bytes(), headers=key)
    renewed = await phone_with(client)
    again = await submit(renewed, photo_bytes(), headers=key)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert (await renewed.get(again.headers["Location"])).status_code == 200
    assert again.json()["subject"]["id"] == made.json()["subject"]["id"]
    assert (await submit(renewed, photo_bytes())).status_code == 403


async def test_a_token_of_another_subject_gets_nothing_by_repeating(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "overheard"}
    other = (await submit(client, photo_bytes())).json()["subject"]["id"]
    await submit(await phone_with(client), photo_bytes(), headers=key)
    again = await submit(await phone_with(client, subject_id=other), photo_bytes(), headers=key)
    assert (again.status_code, again.json()["code"]) == (403, "forbidden")


async def test_a_token_that_is_over_is_made_anew(client: httpx.AsyncClient, db: Session) -> None:
    key = {"Idempotency-Key": "morning"}
    first, again = [(await client.post("/v1/tokens", json={}, headers=key)).json()["token"] for _ in range(2)]
    db.execute(update(ApiKey).where(ApiKey.one_subject).values(expires_at=text("now() - interval '1 second'")))
    db.commit()
    anew = (await client.post("/v1/tokens", json={}, headers=key)).json()["token"]
    assert (again, anew is None, anew == first) == (None, False, False)
