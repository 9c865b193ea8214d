"""Webhook endpoints over HTTP: made, shown, rotated, removed; a message that arrives, and one that is told again."""

from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy.orm import Session
from standardwebhooks.webhooks import Webhook

from core.accounts import Scope
from core.database import Sessions
from core.tables import WebhookDelivery, WebhookEndpoint
from core.webhooks import WebhookEvent
from tests.app.conftest import MakeClient, submit
from tests.app.worker_role import claim, finish
from tests.factories import photo_bytes
from tests.worker.receiver import Receiver, receiver
from worker.webhooks import deliver_due

PATH = "/v1/webhook-endpoints"
URL = "https://example.com/hook"
KEY = {"Idempotency-Key": "k"}


@pytest.fixture
def told() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


@pytest.fixture
def admin(make_client: MakeClient) -> httpx.AsyncClient:
    """A backend that may see to webhooks."""
    return make_client(scopes=[Scope.ADMIN])


def deliver_to(db: Session, sessions: Sessions, told: Receiver) -> None:
    """Lead every endpoint to the receiver on loopback, which no caller could name, and send what is due."""
    db.query(WebhookEndpoint).update({"url": told.url})
    db.commit()
    deliver_due(sessions, allow_private=True)


async def test_a_secret_is_shown_when_it_is_made_and_never_again(admin: httpx.AsyncClient) -> None:
    made = await admin.post(PATH, json={"url": URL})
    endpoint = made.json()
    assert (made.status_code, made.headers["Location"]) == (201, f"{PATH}/{endpoint['id']}")
    assert endpoint["secret"].startswith("whsec_")
    assert endpoint["events"] == list(WebhookEvent)
    hidden = endpoint | {"secret": None}
    assert (await admin.get(made.headers["Location"])).json() == hidden
    assert (await admin.get(PATH)).json() == {"webhook_endpoints": [hidden], "next_cursor": None}


async def test_a_repeated_request_makes_no_second_endpoint_and_shows_no_secret(
    admin: httpx.AsyncClient, db: Session
) -> None:
    first, again = [await admin.post(PATH, json={"url": URL}, headers=KEY) for _ in range(2)]
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.json() == first.json() | {"secret": None}
    assert db.query(WebhookEndpoint).count() == 1
    other = await admin.post(PATH, json={"url": f"{URL}/other"}, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "ftp://example.com",
        "https://",
        "https://user@example.com",
        "https://example.com/#part",
        "https://127.0.0.1/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/hook",
        "https://example.com:port/",
        "https://exam\x00ple.com/",
        "https://m\u00fcller.example/hook",
        "https://example.com/h\u00f6k",
    ],
)
async def test_an_address_that_must_not_be_told_is_refused(admin: httpx.AsyncClient, url: str) -> None:
    answer = await admin.post(PATH, json={"url": url})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/url")


async def test_an_unknown_event_is_refused(admin: httpx.AsyncClient) -> None:
    answer = await admin.post(PATH, json={"url": URL, "events": ["job.exploded"]})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/events/0")


async def test_a_jobs_end_is_told_logged_and_told_again_with_the_same_id(
    client: httpx.AsyncClient,
    make_client: MakeClient,
    account: object,
    db: Session,
    sync_sessions: Sessions,
    told: Receiver,
) -> None:
    admin = make_client(account=account, scopes=[Scope.ADMIN])
    endpoint = (await admin.post(PATH, json={"url": URL, "events": ["job.succeeded"]})).json()
    job = (await submit(client, photo_bytes(), client_reference="order 7")).json()["job"]
    finish(db, claim(db))
    deliver_to(db, sync_sessions, told)
    (headers, body), log = told.messages[0], f"{PATH}/{endpoint['id']}/deliveries"
    message = Webhook(endpoint["secret"]).verify(body, headers)
    assert (message["type"], message["data"]["id"], message["data"]["client_reference"]) == (
        "job.succeeded",
        job["id"],
        "order 7",
    )
    (delivery,) = (await admin.get(log)).json()["deliveries"]
    assert (delivery["id"], delivery["job_id"], delivery["tries"]) == (headers["webhook-id"], job["id"], 1)
    assert (delivery["response_status"], delivery["next_attempt_at"]) == (200, None)
    again = await admin.post(f"{log}/{delivery['id']}/replay")
    assert (again.status_code, again.json()["id"], again.json()["delivered_at"]) == (202, delivery["id"], None)
    deliver_to(db, sync_sessions, told)
    assert told.messages[1][0]["webhook-id"] == headers["webhook-id"]
    assert told.messages[1][1] == body


async def test_a_test_ping_arrives(
    admin: httpx.AsyncClient, db: Session, sync_sessions: Sessions, told: Receiver
) -> None:
    endpoint = (await admin.post(PATH, json={"url": URL})).json()
    first, again = [await admin.post(f"{PATH}/{endpoint['id']}/test", headers=KEY) for _ in range(2)]
    assert (first.status_code, first.json()["event"]) == (202, "webhook.test")
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (first.json(), "true")
    deliver_to(db, sync_sessions, told)
    ((headers, body),) = told.messages
    assert Webhook(endpoint["secret"]).verify(body, headers)["type"] == "webhook.test"


async def test_for_a_while_both_secrets_sign(
    admin: httpx.AsyncClient, db: Session, sync_sessions: Sessions, told: Receiver
) -> None:
    old = (await admin.post(PATH, json={"url": URL})).json()
    rotate = f"{PATH}/{old['id']}/rotate-secret"
    new, again = [await admin.post(rotate, json={"overlap_seconds": 3600}, headers=KEY) for _ in range(2)]
    assert new.status_code == 200
    assert new.json()["secret"] != old["secret"]
    assert (again.json()["secret"], again.headers["Idempotency-Replayed"]) == (None, "true")
    await admin.post(f"{PATH}/{old['id']}/test")
    deliver_to(db, sync_sessions, told)
    headers, body = told.messages[0]
    for secret in (old["secret"], new.json()["secret"]):
        assert Webhook(secret).verify(body, headers)["type"] == "webhook.test"


async def test_an_endpoint_goes_with_the_log_of_its_deliveries(admin: httpx.AsyncClient, db: Session) -> None:
    path = (await admin.post(PATH, json={"url": URL})).headers["Location"]
    await admin.post(f"{path}/test")
    gone = await admin.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await admin.get(path)).status_code == (await admin.delete(path)).status_code == 404
    assert db.query(WebhookDelivery).count() == 0


async def test_lists_are_paged_and_say_where_the_next_page_is(admin: httpx.AsyncClient) -> None:
    ids = [(await admin.post(PATH, json={"url": URL})).json()["id"] for _ in range(3)]
    first = await admin.get(PATH, params={"limit": 2})
    assert [each["id"] for each in first.json()["webhook_endpoints"]] == ids[:0:-1]
    path, relation = first.headers["Link"].split("; ")
    assert relation == 'rel="next"'
    second = await admin.get(path.strip("<>"))
    assert [each["id"] for each in second.json()["webhook_endpoints"]] == ids[:1]

    log = f"{PATH}/{ids[0]}/deliveries"
    sent = [(await admin.post(f"{PATH}/{ids[0]}/test")).json()["id"] for _ in range(2)]
    page = await admin.get(log, params={"limit": 1})
    assert [each["id"] for each in page.json()["deliveries"]] == sent[1:]
    rest = await admin.get(page.headers["Link"].split(">")[0].lstrip("<"))
    assert [each["id"] for each in rest.json()["deliveries"]] == sent[:1]
