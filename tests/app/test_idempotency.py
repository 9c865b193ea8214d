import asyncio
from datetime import UTC, datetime

import httpx
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from app.idempotency import LOCK_SPACE, fingerprint
from core.tables import Account, IdempotencyRecord, Job
from tests.app.conftest import MakeClient, submit
from tests.factories import photo_bytes

KEY = {"Idempotency-Key": "a-phone-on-a-train"}


def count_jobs(db: Session) -> int:
    """In the whole database."""
    return db.scalars(select(func.count()).select_from(Job)).one()


async def test_the_same_key_and_request_give_the_same_job(client: httpx.AsyncClient, db: Session) -> None:
    first = await submit(client, photo_bytes(), name="Ada", headers=KEY)
    again = await submit(client, photo_bytes(), name="Ada", headers=KEY)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert again.headers["Location"] == first.headers["Location"]
    assert again.json()["subject"]["id"] == first.json()["subject"]["id"]
    assert "Idempotency-Replayed" not in first.headers
    assert count_jobs(db) == 1


async def test_the_same_key_for_another_request_is_refused(client: httpx.AsyncClient, db: Session) -> None:
    await submit(client, photo_bytes(), headers=KEY)
    for changed in ({"name": "Ada"}, {"keep_photo": "true"}):
        answer = await submit(client, photo_bytes(), headers=KEY, **changed)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    other_photo = await submit(client, photo_bytes((1, 2, 3)), headers=KEY)
    assert other_photo.json()["code"] == "idempotency_mismatch"
    assert count_jobs(db) == 1


async def test_keys_of_two_accounts_do_not_meet(
    client: httpx.AsyncClient, make_client: MakeClient, db: Session
) -> None:
    await submit(client, photo_bytes(), headers=KEY)
    other = await submit(make_client(), photo_bytes(), headers=KEY)
    assert "Idempotency-Replayed" not in other.headers
    assert count_jobs(db) == 2


async def test_a_refused_request_can_be_repeated_with_the_same_key(client: httpx.AsyncClient) -> None:
    refused = await submit(client, b"no photo", headers=KEY)
    assert refused.status_code == 415
    assert (await submit(client, photo_bytes(), headers=KEY)).status_code == 202


async def test_a_request_under_way_answers_409(client: httpx.AsyncClient, account: Account, db: Session) -> None:
    name = f"{account.id}/{KEY['Idempotency-Key']}"
    db.execute(text("SELECT pg_advisory_xact_lock(:space, hashtext(:name))"), {"space": LOCK_SPACE, "name": name})
    answer = await submit(client, photo_bytes(), headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_in_flight")
    assert answer.headers["Retry-After"] == "1"


async def test_ten_at_once_make_one_job(client: httpx.AsyncClient, db: Session) -> None:
    answers = await asyncio.gather(*(submit(client, photo_bytes(), headers=KEY) for _ in range(10)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.headers["Location"] for answer in answers if answer.status_code == 202}) == 1
    assert count_jobs(db) == 1


async def test_an_expired_record_gives_way(client: httpx.AsyncClient, db: Session) -> None:
    await submit(client, photo_bytes(), headers=KEY)
    db.execute(update(IdempotencyRecord).values(expires_at=datetime(2026, 1, 1, tzinfo=UTC)))
    db.commit()
    again = await submit(client, photo_bytes(), headers=KEY)
    assert "Idempotency-Replayed" not in again.headers
    assert count_jobs(db) == 2


async def test_a_job_that_is_no_longer_kept_gives_way(client: httpx.AsyncClient, db: Session) -> None:
    await submit(client, photo_bytes(), headers=KEY)
    db.execute(delete(Job))
    db.commit()
    again = await submit(client, photo_bytes(), headers=KEY)
    assert (again.status_code, "Idempotency-Replayed" in again.headers) == (202, False)
    assert count_jobs(db) == 1


def test_parts_of_a_fingerprint_do_not_run_together() -> None:
    assert fingerprint(b"ab", b"c") != fingerprint(b"a", b"bc")
