"""Places in the queue and ETAs, over HTTP, of jobs that a worker with a fake engine runs."""

import random
import re
import time
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update
from sqlalchemy.orm import Session

from app.jobs.forecast import Lane, Line, Pace, fraction, queue_seconds
from core.database import Sessions
from core.ids import JOB, decode_id
from core.lifecycle import PHASES, JobKind, JobStatus, Phase, WorkerRole
from core.settings import Settings
from core.statements import report_alive
from core.storage import ObjectStore
from core.tables import Job
from tests.app.conftest import MakeClient, submit
from tests.app.worker_role import claim, finish, progress
from tests.factories import photo_bytes
from tests.worker.conftest import Bench

STEP_SECONDS = 0.1
PACE = Pace(seconds={Phase.FINETUNING: 8.0, Phase.STORING: 2.0})
FREE, BUSY = Lane(batch_size=4), Lane(batch_size=4, free_in=7)


@pytest.fixture
def bench(settings: Settings, sync_sessions: Sessions, store: ObjectStore) -> Bench:
    """A worker whose batches take the same time."""
    bench = Bench(settings, sync_sessions, store)
    bench.engine.between_steps = lambda step: time.sleep(STEP_SECONDS)
    return bench


async def ask(service: FastAPI, client: httpx.AsyncClient, path: str) -> dict[str, object]:
    """The job, with nothing remembered."""
    service.state.parts.forecaster.forget()
    job: dict[str, object] = (await client.get(path)).json()
    return job


def row(db: Session, path: str) -> Job:
    db.expire_all()
    return db.get_one(Job, decode_id(JOB, path.rsplit("/", 1)[1]))


async def test_the_error_of_the_etas_is_published(
    service: FastAPI, client: httpx.AsyncClient, db: Session, bench: Bench
) -> None:
    first = await submit(client, photo_bytes())
    assert first.json()["job"]["eta_seconds"] is None
    bench.personalizing().run_one("mini")
    assert "given=" not in (await client.get("/metrics")).text  # nothing was promised yet

    service.state.parts.forecaster.forget()
    second = await submit(client, photo_bytes())
    assert second.json()["job"]["eta_seconds"] >= 1
    bench.personalizing().run_one("mini")

    job = row(db, second.headers["Location"])
    assert job.finished_at is not None
    text = (await client.get("/metrics")).text
    for given, promised in (("submit", job.promised_at), ("start", job.start_promised_at)):
        assert promised is not None
        labels = f'{{kind="personalize",base_model="mini",given="{given}"}}'
        assert f"hdb_eta_measured_jobs{labels} 1" in text
        published = float(text.split(f"hdb_eta_error_seconds{labels} ")[1].split()[0])
        assert published == pytest.approx(abs((job.finished_at - promised).total_seconds()), abs=0.002)
        assert re.search(rf"hdb_eta_error_ratio{re.escape(labels)} [0-9.]+", text)


async def test_the_first_eta_is_kept_whatever_is_asked_later(client: httpx.AsyncClient, db: Session) -> None:
    await submit(client, photo_bytes())
    finish(db, claim(db))
    path = (await submit(client, photo_bytes())).headers["Location"]
    promised = row(db, path).promised_at
    claim(db)
    await client.get(path)
    assert row(db, path).promised_at == promised


async def test_a_place_rises_for_nothing_but_fairness(
    service: FastAPI, client: httpx.AsyncClient, make_client: MakeClient, db: Session
) -> None:
    async def place() -> int:
        job = await ask(service, client, mine)
        queue = job["queue"]
        assert isinstance(queue, dict)
        return int(queue["position"])

    other, newcomer = make_client(), make_client()
    await submit(client, photo_bytes())
    await submit(other, photo_bytes())
    mine = (await submit(client, photo_bytes())).headers["Location"]
    places = [await place()]
    for later in (client, other, client):
        await submit(later, photo_bytes())
        places.append(await place())
    ahead = [claim(db), claim(db)]
    places.append(await place())
    assert places == [3, 3, 3, 3, 1]
    await submit(newcomer, photo_bytes())
    assert await place() == 2  # whose turn it is: an account that has had none goes first
    finish(db, ahead[0])  # ours: our turn comes earlier
    assert await place() == 1


async def test_who_comes_first_waits_for_the_batch_that_runs(
    service: FastAPI, client: httpx.AsyncClient, db: Session
) -> None:
    done = (await submit(client, photo_bytes())).headers["Location"]
    finish(db, claim(db))
    timings = {"validating": 0.0, "predicting": 0.0, "finetuning": 20.0, "storing": 0.0}
    db.execute(update(Job).where(Job.id == row(db, done).id).values(timings=timings))
    db.execute(report_alive("test", WorkerRole.GPU, state="busy", base_model="mini"))
    db.commit()
    await submit(client, photo_bytes())
    progress(db, claim(db), Phase.FINETUNING, 1, 4)
    path = (await submit(client, photo_bytes())).headers["Location"]
    job = await ask(service, client, path)
    assert job["queue"] == {"position": 1, "ahead_seconds": 15}
    assert job["eta_seconds"] == 45  # 15 + 20, rounded up


async def test_a_batch_is_as_large_as_the_workers_say(service: FastAPI, client: httpx.AsyncClient, db: Session) -> None:
    finished = (await submit(client, photo_bytes())).headers["Location"]
    finish(db, claim(db))
    timings = {"validating": 0.0, "predicting": 0.0, "finetuning": 20.0, "storing": 0.0}
    db.execute(update(Job).where(Job.id == row(db, finished).id).values(timings=timings))
    db.commit()
    for _ in range(5):
        path = (await submit(client, photo_bytes())).headers["Location"]
    waits = []
    for said in ({}, {"a": 2}, {"a": 2, "b": 1}, {"a": 4, "b": 1}, {"a": 2, "b": 1}):
        for name, size in said.items():
            db.execute(report_alive(name, WorkerRole.GPU, state="ready", base_model="mini", batch_size=size))
        db.commit()
        queue = (await ask(service, client, path))["queue"]
        assert isinstance(queue, dict)
        waits.append((queue["position"], queue["ahead_seconds"]))
    # Batches of 1 where nobody serves the queue; then of 2, 3 and 5 in all; of 3 again after a worker's size halved.
    assert waits == [(5, 90), (5, 45), (5, 20), (5, 0), (5, 20)]


@pytest.mark.parametrize(
    ("ahead", "line", "seconds"),
    [
        (3, Line(lanes=[FREE]), 0),
        (4, Line(lanes=[FREE]), 10),
        (0, Line(lanes=[BUSY]), 7),
        (4, Line(lanes=[BUSY, replace(BUSY, free_in=2)]), 7),
        (0, Line(lanes=[BUSY, replace(BUSY, free_in=2)]), 2),
        (16, Line(lanes=[BUSY, replace(BUSY, free_in=2)]), 22),
        # Workers of two sizes: the one that is free first takes 2 of each 6.
        (1, Line(lanes=[BUSY, Lane(batch_size=2, free_in=2)]), 2),
        (2, Line(lanes=[BUSY, Lane(batch_size=2, free_in=2)]), 7),
        (5, Line(lanes=[BUSY, Lane(batch_size=2, free_in=2)]), 7),
        (6, Line(lanes=[BUSY, Lane(batch_size=2, free_in=2)]), 12),
        # The other kind of work has its turn after this batch, and then after each.
        (4, Line(lanes=[replace(BUSY, other_is_next=True)], other_jobs=36, other_seconds=3), 23),
        (4, Line(lanes=[replace(BUSY, other_is_next=True)], other_jobs=4, other_seconds=3), 20),
        (4, Line(lanes=[replace(BUSY, other_is_next=True)], other_jobs=5, other_seconds=3), 23),
    ],
)
def test_how_long_a_queue_takes(ahead: int, line: Line, seconds: float) -> None:
    assert queue_seconds(ahead, PACE, line) == seconds


def test_what_was_never_measured_is_unknown() -> None:
    assert queue_seconds(0, Pace(seconds=None), Line(lanes=[FREE])) is None


async def test_every_kind_can_be_waited_for(client: httpx.AsyncClient, db: Session, bench: Bench) -> None:
    created = (await submit(client, photo_bytes())).json()
    bench.personalizing().run_one("mini")
    asked = await client.post(f"{created['subject']['links']['self']}/generations", json={"prompt": "a"})
    assert (asked.status_code, asked.json()["job"]["queue"]["position"]) == (202, 1)
    assert bench.generating().run_one("mini") == 1
    assert row(db, asked.headers["Location"]).kind is JobKind.GENERATE


async def test_what_a_job_makes_says_when_to_ask_again(
    service: FastAPI, client: httpx.AsyncClient, bench: Bench, db: Session
) -> None:
    subject = (await submit(client, photo_bytes())).json()["subject"]["links"]["self"]
    unknown = await client.get(subject)
    bench.personalizing().run_one("mini")
    ready = await client.get(subject)
    generation = (await client.post(f"{subject}/generations", json={"prompt": "a"})).json()["generation"]
    waiting = await client.get(generation["links"]["self"])
    bench.generating().run_one("mini")
    drawn = await client.get(generation["links"]["self"])
    assert [each.headers.get("Retry-After") for each in (unknown, ready, waiting, drawn)] == ["2", None, "2", None]

    db.execute(update(Job).where(Job.kind == JobKind.PERSONALIZE).values(timings={Phase.FINETUNING: 28.0}))
    db.commit()
    service.state.parts.forecaster.forget()
    made = await submit(client, photo_bytes())
    path = made.json()["subject"]["links"]["self"]
    polled, again = await client.get(path), await client.get(made.headers["Location"])
    same = await client.get(path, headers={"If-None-Match": polled.headers["ETag"]})
    # A quarter of the ETA, which is 30 seconds.
    assert [each.headers["Retry-After"] for each in (made, polled, again, same)] == ["7"] * 4
    assert same.status_code == 304


def test_the_share_that_is_done_lies_between_nothing_and_all() -> None:
    # In floats the sum of all phases may be less than that of the first and the others.
    draw = random.Random(0)
    for _ in range(1000):
        pace = Pace(seconds={phase: draw.uniform(0, 3) for phase in PHASES[JobKind.PERSONALIZE]})
        job = Job(kind=JobKind.PERSONALIZE, status=JobStatus.RUNNING, phase=Phase.VALIDATING, step=0, total_steps=1)
        assert 0 <= fraction(job, pace) <= 1
