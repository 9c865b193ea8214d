"""How long callers wait: for an answer under load, and for a worker on an idle system."""

import asyncio
import random
import time
from collections.abc import Callable

import httpcore
import httpx
from sqlalchemy import select

from benchmarks.api.plan import Plan
from benchmarks.api.service import Measured, selfie, submit
from core.ids import JOB, decode_id
from core.lifecycle import JobStatus
from core.tables import JobEvent

IDLE_SECONDS = 0.2


async def latencies(measured: Measured, plan: Plan) -> tuple[float, float]:
    """Median and 99th percentile of a poll's seconds at 70 % of what the API can take, with random arrivals."""
    headers = [(name.encode(), value.encode()) for name, value in measured.headers.items()]
    url = measured.api + measured.job_path
    async with httpcore.AsyncConnectionPool(max_connections=64, max_keepalive_connections=64) as pool:
        most = await requests_per_second(pool, url, headers, plan)
        rng, tasks = random.Random(0), []  # noqa: S311 - arrivals, not secrets
        end = time.monotonic() + plan.open_loop_seconds
        while time.monotonic() < end:
            tasks.append(asyncio.create_task(timed(pool, url, headers)))
            await asyncio.sleep(rng.expovariate(plan.load * most))
        seconds = await asyncio.gather(*tasks)
    return percentile(seconds, 50), percentile(seconds, 99)


async def requests_per_second(
    pool: httpcore.AsyncConnectionPool, url: str, headers: list[tuple[bytes, bytes]], plan: Plan
) -> float:
    """As many as a few connections get through, one after another on each."""
    end = time.monotonic() + plan.saturation_seconds

    async def ask_on() -> int:
        count = 0
        while time.monotonic() < end:
            await pool.request("GET", url, headers=headers)
            count += 1
        return count

    return sum(await asyncio.gather(*(ask_on() for _ in range(plan.connections)))) / plan.saturation_seconds


async def timed(pool: httpcore.AsyncConnectionPool, url: str, headers: list[tuple[bytes, bytes]]) -> float:
    """Seconds from sending to the whole answer."""
    began = time.monotonic()
    answer = await pool.request("GET", url, headers=headers)
    assert answer.status == 200, answer.status
    return time.monotonic() - began


def submit_to_start(measured: Measured, plan: Plan) -> list[float]:
    """Milliseconds from the writing of a job's row to its claim, on the database's clock; then the job is cancelled."""
    photo, delays = selfie(), []
    with httpx.Client(base_url=measured.api, headers=measured.headers, timeout=60) as api:
        for _ in range(plan.starts):
            path = f"/v1/jobs/{submit(api, photo)}"
            job = wait(api, path, until=lambda job: job["status"] != JobStatus.QUEUED)
            delays.append(claim_delay(measured, str(job["id"])))
            api.post(f"{path}/cancel").raise_for_status()
            wait(api, path, until=lambda job: job["finished_at"] is not None)
            time.sleep(IDLE_SECONDS)
    return delays


def wait(api: httpx.Client, path: str, *, until: Callable[[dict[str, object]], bool]) -> dict[str, object]:
    """Long polls, until the job is as it should be."""
    etag = ""
    while True:
        answer = api.get(path, headers={"Prefer": "wait=20", "If-None-Match": etag})
        if answer.status_code == 200:
            job: dict[str, object] = answer.json()
            etag = answer.headers["ETag"]
            if until(job):
                return job


def claim_delay(measured: Measured, job_id: str) -> float:
    """Milliseconds between the first two events of a job: it was made, it was claimed."""
    events = select(JobEvent.at).where(JobEvent.job_id == decode_id(JOB, job_id)).order_by(JobEvent.number).limit(2)
    with measured.sessions() as session:
        made_at, claimed_at = session.scalars(events)
    return (claimed_at - made_at).total_seconds() * 1000


def percentile(values: list[float], percent: int) -> float:
    """The nearest rank."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 4)
