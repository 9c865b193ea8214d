"""What the API costs beside a bare endpoint: `python -m benchmarks.api --out FILE`.

CPU seconds of the server's process are compared, not wall time: they hardly depend on what else the machine does. Both
sides are measured in turns, and the median of the rounds' ratios counts.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from pathlib import Path

import httpcore
import httpx
import psutil

from benchmarks.api.service import Measured, measured_service, selfie, worker
from core.ids import JOB, decode_id
from core.tables import Job

ROUNDS, REQUESTS, WARM_UP = 7, 300, 200
CREATES = 30
SATURATION_SECONDS, CONNECTIONS = 5.0, 8
OPEN_LOOP_SECONDS, LOAD = 15.0, 0.7
STARTS = 40


def main() -> None:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    with measured_service() as measured:
        ratios = cpu_ratios(measured)
        median, p99 = asyncio.run(latencies(measured))
        with worker(measured):
            starts = submit_to_start(measured)
    result = {
        "ratios": ratios,
        "submit_to_start_ms": {"p50": percentile(starts, 50), "p99": percentile(starts, 99)},
        "p99_over_p50": round(p99 / median, 2),
    }
    print(table(result))
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")


def cpu_ratios(measured: Measured) -> dict[str, float]:
    """CPU per request of each call, over the bare endpoint's."""
    with (
        httpx.Client(base_url=measured.api, headers=measured.headers) as api,
        httpx.Client(base_url=measured.bare) as bare,
    ):
        etag = api.get(measured.job_path).headers["ETag"]
        known = {"If-None-Match": etag}

        def poll_304() -> float:
            return cpu_per_request(measured.api_process, api, measured.job_path, 304, headers=known)

        def poll_body() -> float:
            return cpu_per_request(measured.api_process, api, measured.job_path, 200)

        def bare_304() -> float:
            return cpu_per_request(measured.bare_process, bare, "/empty", 304)

        def bare_body() -> float:
            return cpu_per_request(measured.bare_process, bare, "/bare", 200)

        rounds = [(poll_304(), bare_304(), poll_body(), bare_body()) for _ in range(ROUNDS)]
        create = cpu_of_create(measured, api)
    return {
        "poll_304": round(statistics.median(poll / base for poll, base, _, _ in rounds), 2),
        "poll_body": round(statistics.median(poll / base for _, _, poll, base in rounds), 2),
        "create": round(create / statistics.median(base for *_, base in rounds), 2),
    }


def cpu_per_request(
    process: psutil.Process, client: httpx.Client, path: str, status: int, *, headers: dict[str, str] | None = None
) -> float:
    """User and system seconds of the server for one request, on a connection that stays open."""
    for _ in range(WARM_UP):
        assert client.get(path, headers=headers).status_code == status
    before = cpu_seconds(process)
    for _ in range(REQUESTS):
        client.get(path, headers=headers)
    return (cpu_seconds(process) - before) / REQUESTS


def cpu_of_create(measured: Measured, api: httpx.Client) -> float:
    """The same for `POST /v1/subjects` with a JPEG of 50 kB, decoders included."""
    photo = selfie()
    submit(api, photo)
    before = cpu_seconds(measured.api_process)
    for _ in range(CREATES):
        submit(api, photo)
    return (cpu_seconds(measured.api_process) - before) / CREATES


def submit(api: httpx.Client, photo: bytes) -> str:
    """A new subject; the id of its job."""
    answer = api.post("/v1/subjects", files={"photo": photo}, data={"consent": "self"}, timeout=60)
    job_id: str = answer.raise_for_status().json()["job"]["id"]
    return job_id


def cpu_seconds(process: psutil.Process) -> float:
    """Of the process and its children."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(spent.user + spent.system for spent in times))


async def latencies(measured: Measured) -> tuple[float, float]:
    """Median and 99th percentile of a poll's seconds at 70 % of what the API can take, with random arrivals."""
    headers = [(name.encode(), value.encode()) for name, value in measured.headers.items()]
    url = measured.api + measured.job_path
    async with httpcore.AsyncConnectionPool(max_connections=64, max_keepalive_connections=64) as pool:
        most = await requests_per_second(pool, url, headers)
        rng, tasks = random.Random(0), []  # noqa: S311 - arrivals, not secrets
        end = time.monotonic() + OPEN_LOOP_SECONDS
        while time.monotonic() < end:
            tasks.append(asyncio.create_task(timed(pool, url, headers)))
            await asyncio.sleep(rng.expovariate(LOAD * most))
        seconds = await asyncio.gather(*tasks)
    return percentile(seconds, 50), percentile(seconds, 99)


async def requests_per_second(
    pool: httpcore.AsyncConnectionPool, url: str, headers: list[tuple[bytes, bytes]]
) -> float:
    """As many as a few connections get through, one after another on each."""
    end = time.monotonic() + SATURATION_SECONDS

    async def ask_on() -> int:
        count = 0
        while time.monotonic() < end:
            await pool.request("GET", url, headers=headers)
            count += 1
        return count

    return sum(await asyncio.gather(*(ask_on() for _ in range(CONNECTIONS)))) / SATURATION_SECONDS


async def timed(pool: httpcore.AsyncConnectionPool, url: str, headers: list[tuple[bytes, bytes]]) -> float:
    """Seconds from sending to the whole answer."""
    began = time.monotonic()
    answer = await pool.request("GET", url, headers=headers)
    assert answer.status == 200, answer.status
    return time.monotonic() - began


def submit_to_start(measured: Measured) -> list[float]:
    """Milliseconds from a job's row to its claim, both on the database's clock, on an idle system."""
    photo, delays = selfie(), []
    with httpx.Client(base_url=measured.api, headers=measured.headers) as api:
        for _ in range(STARTS):
            job_id = submit(api, photo)
            while api.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"}).json()["finished_at"] is None:
                continue
            row_id = decode_id(JOB, job_id)
            with measured.sessions() as session:
                job = session.get_one(Job, row_id)
                assert job.started_at is not None
                delays.append((job.started_at - job.created_at).total_seconds() * 1000)
    return delays


def percentile(values: list[float], percent: int) -> float:
    """The nearest rank."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 4)


def table(result: dict[str, object]) -> str:
    """Markdown."""
    ratios, starts = result["ratios"], result["submit_to_start_ms"]
    assert isinstance(ratios, dict)
    assert isinstance(starts, dict)
    rows = [
        ("CPU of a poll that answers 304, over a bare endpoint's", f"{ratios['poll_304']} x", "1.5 x"),
        ("CPU of a poll with body, over a bare endpoint's", f"{ratios['poll_body']} x", "2.5 x"),
        ("CPU of creating a subject (50 kB JPEG), over a bare endpoint's", f"{ratios['create']} x", "-"),
        ("p99 over median at 70 % of saturation", f"{result['p99_over_p50']} x", "5 x"),
        ("submit to worker start, idle, p50 / p99", f"{starts['p50']:.0f} / {starts['p99']:.0f} ms", "- / 50 ms"),
    ]
    lines = ["| measured | here | goal |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
