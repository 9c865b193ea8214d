"""Server-Sent Events, of two replicas: nothing is shared but the database."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast
from uuid import UUID

import httpx
import pytest
from sqlalchemy.orm import Session

from app.jobs.stream import PING_SECONDS, event_stream
from app.jobs.watch import Event, Feed, JobWatcher
from app.main import create_app
from core.ids import new_id
from core.lifecycle import JobStatus, Phase
from core.settings import Settings
from tests.app.conftest import TLS, MakeClient, serving, submit
from tests.app.worker_role import claim, finish, progress
from tests.factories import photo_bytes


@pytest.fixture(scope="module")
async def replicas(settings: Settings) -> AsyncIterator[tuple[str, str]]:
    """Two of them."""
    async with serving(create_app(settings)) as one, serving(create_app(settings)) as other:
        yield one, other


@pytest.fixture
async def path(client: httpx.AsyncClient) -> str:
    """Of a queued job."""
    return (await submit(client, photo_bytes())).headers["Location"]


@asynccontextmanager
async def events_of(
    client: httpx.AsyncClient, replica: str, path: str, *, after: int | None = None
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The job's events as they come."""
    headers = {"Authorization": client.headers["Authorization"]}
    headers |= {} if after is None else {"Last-Event-ID": str(after)}
    async with (
        asyncio.timeout(120),
        httpx.AsyncClient(base_url=replica, headers=headers, timeout=120, verify=TLS) as phone,
        phone.stream("GET", f"{path}/events") as answer,
    ):
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        yield (json.loads(line.removeprefix("data: ")) async for line in answer.aiter_lines() if line[:5] == "data:")


async def test_a_stream_tells_the_past_and_then_each_change(
    client: httpx.AsyncClient, db: Session, replicas: tuple[str, str], path: str
) -> None:
    async with events_of(client, replicas[0], path) as events:
        assert (await anext(events))["status"] == "queued"
        job = claim(db)
        assert (await anext(events))["status"] == "running"
        progress(db, job, Phase.FINETUNING, 1, 40)
        told = await anext(events)
        assert (told["number"], told["phase"], told["attempt"]) == (3, "finetuning", 1)
        finish(db, job)
        assert [event["status"] async for event in events] == ["succeeded"]


async def test_a_client_that_comes_back_to_another_replica_misses_nothing_and_sees_nothing_twice(
    client: httpx.AsyncClient, db: Session, replicas: tuple[str, str], path: str
) -> None:
    job = claim(db)
    async with events_of(client, replicas[0], path) as events:
        seen = [(await anext(events))["number"] for _ in range(2)]
    for phase in (Phase.VALIDATING, Phase.PREDICTING, Phase.FINETUNING):
        progress(db, job, phase)
    async with events_of(client, replicas[1], path, after=seen[-1]) as events:
        seen += [(await anext(events))["number"]]
        finish(db, job, JobStatus.FAILED, error={"code": "internal"})
        seen += [event["number"] async for event in events]
    assert seen == [1, 2, 3, 4, 5, 6]


async def test_the_stream_of_a_job_that_has_ended_ends(
    client: httpx.AsyncClient, db: Session, replicas: tuple[str, str], path: str
) -> None:
    finish(db, claim(db))
    async with events_of(client, replicas[0], path) as events:
        assert [event["status"] async for event in events] == ["queued", "running", "succeeded"]


async def test_a_stream_without_news_is_kept_open_by_pings(
    client: httpx.AsyncClient, db: Session, replicas: tuple[str, str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PING_SECONDS == 15
    monkeypatch.setattr("app.jobs.stream.PING_SECONDS", 0.05)
    headers = {"Authorization": client.headers["Authorization"]}
    async with (
        asyncio.timeout(120),
        httpx.AsyncClient(base_url=replicas[0], headers=headers, verify=TLS) as phone,
        phone.stream("GET", f"{path}/events") as answer,
    ):
        lines = answer.aiter_lines()
        told = [await anext(lines) for _ in range(8)]
        assert told[4:8] == [": ping", "", ": ping", ""]
        finish(db, claim(db))
        assert [line for line in [line async for line in lines] if line.startswith("id")] == ["id: 2", "id: 3"]


async def test_many_streams_share_few_connections(
    client: httpx.AsyncClient, db: Session, replicas: tuple[str, str], path: str
) -> None:
    async def last() -> str:
        async with events_of(client, replicas[0], path) as events:
            statuses = [str(event["status"]) async for event in events]
            return statuses[-1]

    streams = [asyncio.create_task(last()) for _ in range(25)]  # the pool has 20 connections
    finish(db, claim(db))
    assert set(await asyncio.gather(*streams)) == {"succeeded"}


async def test_who_has_seen_more_than_there_was_is_told_the_end_by_the_end(
    client: httpx.AsyncClient, db: Session, replicas: tuple[str, str], path: str
) -> None:
    finish(db, claim(db))
    async with events_of(client, replicas[0], path, after=99) as events:
        assert [event async for event in events] == []


async def test_streams_are_their_accounts_alone(make_client: MakeClient, path: str) -> None:
    answer = await make_client().get(f"{path}/events")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("last", ["-1", "x", "99999999999999999999"])
async def test_an_id_that_is_no_number_is_refused(client: httpx.AsyncClient, path: str, last: str) -> None:
    answer = await client.get(f"{path}/events", headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "Last-Event-ID")


async def test_a_slow_reader_is_told_what_came_while_it_read() -> None:
    feed = Feed()

    class Watcher:
        @contextmanager
        def watch(self, job_id: UUID) -> Iterator[Feed]:
            yield feed

    feed.add(Event(1, is_last=False, written=b"queued"))
    stream = event_stream(cast(JobWatcher, Watcher()), new_id(), after=0)
    async with asyncio.timeout(PING_SECONDS / 2):
        assert await anext(stream) == b"queued"
        feed.add(Event(2, is_last=True, written=b"canceled"))
        assert [written async for written in stream] == [b"canceled"]
