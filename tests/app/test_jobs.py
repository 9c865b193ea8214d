import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event, text, update
from sqlalchemy.orm import Session

from core.accounts import Scope, revoke_key
from core.ids import JOB, decode_id
from core.lifecycle import JobKind, JobStatus, Phase, WorkerRole
from core.statements import release_job, report_alive
from core.storage import ObjectStore
from core.tables import Account, ApiKey, Job
from tests.app.conftest import MakeClient, submit
from tests.app.worker_role import claim, finish, personalize, progress
from tests.factories import make_job, make_subject, photo_bytes


@pytest.fixture
async def path(client: httpx.AsyncClient) -> str:
    """Of a queued job."""
    return (await submit(client, photo_bytes())).headers["Location"]


async def test_a_running_job_says_where_it_is(client: httpx.AsyncClient, db: Session, path: str) -> None:
    progress(db, claim(db), Phase.FINETUNING, 10, 40)
    job = (await client.get(path)).json()
    assert (job["status"], job["phase"], job["attempt"]) == ("running", "finetuning", 1)
    assert job["progress"] == {"step": 10, "total_steps": 40, "fraction": 0.3}
    assert (job["queue"], job["eta_seconds"]) == (None, None)


async def test_a_job_that_succeeded_names_what_it_made(
    client: httpx.AsyncClient, db: Session, store: ObjectStore, path: str
) -> None:
    personalize(db, store)
    job = (await client.get(path)).json()
    subject = f"/v1/subjects/{job['subject_id']}"
    assert (job["status"], job["progress"]["fraction"], job["error"]) == ("succeeded", 1, None)
    assert (job["result"]["subject"], job["result"]["weights"]) == (subject, f"{subject}/weights")
    assert (await client.get(job["result"]["weights"])).status_code == 200
    assert "cancel" not in job["links"]


async def test_a_refusal_says_why(client: httpx.AsyncClient, db: Session, path: str) -> None:
    error = {"code": "several_faces", "detail": "two faces", "retryable": False, "boxes": [[1, 2, 3, 4]]}
    finish(db, claim(db), JobStatus.REJECTED, error=error | {"photo": 0})
    answer = await client.get(path)
    assert answer.json()["error"] == error | {
        "type": "/docs/errors/several_faces",
        "title": "There is more than one face in this photo",
        "errors": [{"pointer": "#/photo/0", "detail": "two faces"}],
    }
    assert "Retry-After" not in answer.headers
    assert (await client.get("/docs/errors/several_faces")).status_code == 200


async def test_what_an_earlier_attempt_failed_with_is_not_the_jobs_error(
    client: httpx.AsyncClient, db: Session, path: str
) -> None:
    job = claim(db)
    db.scalars(release_job(job.id, job.attempt, error={"code": "storage_unavailable"}, keep=timedelta(days=1))).one()
    db.commit()
    assert (await client.get(path)).json()["error"] is None


async def test_an_unchanged_job_costs_no_body(client: httpx.AsyncClient, db: Session, path: str) -> None:
    first = await client.get(path)
    again = await client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert int(again.headers["Retry-After"]) >= 1

    claim(db)
    changed = await client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (changed.status_code, changed.json()["version"]) == (200, 2)


@contextmanager
def statements(service: FastAPI) -> Iterator[list[str]]:
    """What the application asks the database meanwhile."""
    asked: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        asked.append(statement)

    engines = [service.state.parts.reads.sync_engine, service.state.parts.engine.sync_engine]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    yield asked
    for engine in engines:
        event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("known", [True, False])
async def test_a_poll_costs_one_statement(service: FastAPI, client: httpx.AsyncClient, path: str, known: bool) -> None:
    headers = {"If-None-Match": (await client.get(path)).headers["ETag"]} if known else {}
    with statements(service) as asked:
        answer = await client.get(path, headers=headers)
    assert (answer.status_code, len(asked)) == (304 if known else 200, 1)


async def test_a_revoked_key_polls_no_more(client: httpx.AsyncClient, db: Session, path: str) -> None:
    seen = {"If-None-Match": (await client.get(path)).headers["ETag"]}
    revoke_key(db, db.query(ApiKey).one().id, actor="test")
    db.commit()
    answer = await client.get(path, headers=seen)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


async def test_reads_survive_a_database_that_dropped_their_connections(
    client: httpx.AsyncClient, db: Session, path: str
) -> None:
    await client.get(path)
    db.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))
    db.commit()
    assert (await client.get(path)).status_code == 200


MANY = 25  # the pools have 20 connections


async def until_waiting(service: FastAPI, count: int) -> None:
    """So many requests are held."""
    async with asyncio.timeout(20):
        while service.state.parts.watcher.waiters() < count:  # noqa: ASYNC110 - what is tested rings no bell for us
            await asyncio.sleep(0)


async def test_a_waiting_request_is_answered_when_the_state_changes(
    service: FastAPI, client: httpx.AsyncClient, db: Session, path: str
) -> None:
    seen = (await client.get(path)).headers["ETag"]
    waiting = asyncio.create_task(client.get(path, headers={"Prefer": "wait=20", "If-None-Match": seen}))
    await until_waiting(service, 1)
    began = asyncio.get_running_loop().time()
    claim(db)
    answer = await waiting
    assert answer.json()["status"] == "running"
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert asyncio.get_running_loop().time() - began < 3


async def test_a_wait_ends_with_its_time(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"Prefer": "respond-async, wait=1"})
    assert (answer.json()["status"], answer.headers["Preference-Applied"]) == ("queued", "wait=1")


async def test_who_is_behind_the_state_does_not_wait(client: httpx.AsyncClient, db: Session, path: str) -> None:
    seen = (await client.get(path)).headers["ETag"]
    claim(db)
    async with asyncio.timeout(5):
        answer = await client.get(path, headers={"Prefer": "wait=20", "If-None-Match": seen})
    assert (answer.status_code, answer.json()["status"]) == (200, "running")


async def test_many_may_wait_while_few_connections_are_open(
    service: FastAPI, client: httpx.AsyncClient, db: Session, path: str
) -> None:
    asked = {"Prefer": "wait=20", "If-None-Match": (await client.get(path)).headers["ETag"]}
    waiting = [asyncio.create_task(client.get(path, headers=asked)) for _ in range(MANY)]
    await until_waiting(service, MANY)
    claim(db)
    assert {answer.json()["status"] for answer in await asyncio.gather(*waiting)} == {"running"}


async def test_the_queue_tells_how_many_are_ahead_and_for_how_long(
    service: FastAPI, client: httpx.AsyncClient, db: Session, path: str
) -> None:
    finish(db, claim(db))
    ended = db.get_one(Job, decode_id(JOB, path.rsplit("/", 1)[1]))
    db.execute(update(Job).where(Job.id == ended.id).values(timings={"finetuning": 9.0, "storing": 0.5}))
    for _ in range(5):
        make_job(db, make_subject(db))  # of five other accounts: all served before our second one
    db.execute(report_alive("worker", WorkerRole.GPU, state="ready", base_model="mini", batch_size=4))
    db.commit()
    service.state.parts.forecaster.forget()

    job = (await submit(client, photo_bytes())).json()["job"]
    # Batches of four, 9.5 s each: one batch is ahead.
    assert job["queue"] == {"position": 6, "ahead_seconds": 10}
    assert job["eta_seconds"] == 20


async def test_a_queued_job_is_canceled_at_once_and_twice_is_no_error(client: httpx.AsyncClient, path: str) -> None:
    for _ in range(2):
        answer = await client.post(f"{path}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "canceled")


async def test_a_running_job_is_asked_to_stop(client: httpx.AsyncClient, db: Session, path: str) -> None:
    claim(db)
    answer = await client.post(f"{path}/cancel")
    assert (answer.json()["status"], answer.json()["cancel_requested"]) == ("running", True)
    assert int(answer.headers["Retry-After"]) in range(1, 11)


async def test_canceling_what_has_ended_changes_nothing(client: httpx.AsyncClient, db: Session, path: str) -> None:
    finish(db, claim(db))
    assert (await client.post(f"{path}/cancel")).json()["status"] == "succeeded"


async def test_a_deadline_is_kept_with_the_job(client: httpx.AsyncClient, db: Session) -> None:
    await submit(client, photo_bytes(), deadline_seconds="60")
    job = db.query(Job).one()
    assert job.deadline_at is not None
    assert job.deadline_at - job.created_at == timedelta(seconds=60)


async def test_jobs_are_listed_by_status_and_kind(client: httpx.AsyncClient, db: Session, path: str) -> None:
    claim(db)
    await submit(client, photo_bytes())
    both = (await client.get("/v1/jobs")).json()["jobs"]
    running = (await client.get("/v1/jobs", params={"status": "running", "kind": "personalize"})).json()["jobs"]
    assert [job["status"] for job in both] == ["queued", "running"]
    assert [job["links"]["self"] for job in running] == [path]
    assert (await client.get("/v1/jobs", params={"status": "gone"})).json()["errors"][0]["pointer"] == "?status"


async def test_an_unchanged_page_costs_no_body_and_no_quota(client: httpx.AsyncClient, db: Session, path: str) -> None:
    asked = {"status": ["queued"], "limit": ["1"]}
    first = await client.get("/v1/jobs", params=asked)
    seen = {"If-None-Match": first.headers["ETag"]}
    again, once_more = [await client.get("/v1/jobs", params=asked, headers=seen) for _ in range(2)]
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert again.headers["RateLimit"].split(";")[1] == once_more.headers["RateLimit"].split(";")[1]

    await submit(client, photo_bytes())
    grown = await client.get("/v1/jobs", params=asked, headers=seen)
    assert (grown.status_code, 'rel="next"' in grown.headers["Link"]) == (200, True)
    seen = {"If-None-Match": grown.headers["ETag"]}
    assert (await client.get("/v1/jobs", params=asked, headers=seen)).headers["Link"] == grown.headers["Link"]
    claim(db)
    changed = await client.get("/v1/jobs", headers=seen)
    assert (changed.status_code, len(changed.json()["jobs"])) == (200, 2)


async def test_a_page_says_when_to_ask_again_as_long_as_a_job_on_it_goes_on(
    client: httpx.AsyncClient, db: Session, path: str
) -> None:
    waiting = await client.get("/v1/jobs")
    finish(db, claim(db))
    ended = await client.get("/v1/jobs")
    assert [each.headers.get("Retry-After") for each in (waiting, ended)] == ["2", None]


async def test_a_job_is_its_accounts_alone(make_client: MakeClient, path: str) -> None:
    stranger = make_client()
    assert (await stranger.get(path)).status_code == 404
    assert (await stranger.post(f"{path}/cancel")).status_code == 404
    assert (await stranger.get("/v1/jobs")).json()["jobs"] == []


async def test_canceling_needs_the_scope_of_what_was_asked(
    make_client: MakeClient, account: Account, path: str
) -> None:
    reader = make_client(account=account, scopes=[Scope.READ])
    answer = await reader.post(f"{path}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_every_kind_of_job_can_be_shown(client: httpx.AsyncClient, account: Account, db: Session) -> None:
    subject = make_subject(db, account)
    for kind in JobKind:
        make_job(db, subject, kind=kind)
    db.commit()
    shown = (await client.get("/v1/jobs")).json()["jobs"]
    assert {job["kind"] for job in shown} == set(JobKind)
    for job in shown:
        assert (await client.get(job["links"]["self"])).status_code == 200
