"""A crowd that waits: `python -m benchmarks.api.crowd --streams 1000 --polls 1000`.

Streams of events and long polls, all open at once on one API process, twice; between the waves everybody leaves.
"""

import argparse
import asyncio
import json
import resource
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from sqlalchemy import func, select, text, update

from benchmarks.api.service import Measured, measured_service
from core.ids import JOB, encode_id
from core.lifecycle import JobKind, JobStatus
from core.tables import Account, Job, Subject

JOBS = 20
WAVES = 2
OPENING_AT_ONCE = 100
LOOK_SECONDS = 1.0
# At any moment a few whose long poll ended are about to ask again.
EVERYBODY = 0.98
PATIENCE_SECONDS = 1500.0
MEGABYTE = 1_000_000


@dataclass
class Wave:
    """One crowd: what it met and what the API used for it."""

    answers: Counter[str] = field(default_factory=Counter)
    memory_mb: dict[str, float] = field(default_factory=dict)
    connections: int = 0
    told_within_seconds: float = 0.0


class Visitor:
    """A client with a socket of its own."""

    def __init__(self, measured: Measured, wave: Wave, gate: asyncio.Semaphore) -> None:
        self._measured, self._wave, self._gate = measured, wave, gate

    async def stream(self, path: str) -> None:
        """Read every event, until the stream ends by itself."""
        status, reader, writer = await self._ask(f"{path}/events")
        numbers = [int(line[4:]) async for line in reader if line.startswith(b"id: ")]
        writer.close()
        whole = numbers == list(range(1, len(numbers) + 1)) and len(numbers) == 3
        self._wave.answers["stream told all" if whole else f"stream: {status}, events {numbers}"] += 1

    async def poll(self, path: str) -> None:
        """Ask with `Prefer: wait` until the job is no longer queued."""
        waiting = True
        while waiting:
            status, reader, writer = await self._ask(path, "Prefer: wait=20")
            body = await reader.read()
            writer.close()
            waiting = status == 200 and b'"status":"queued"' in body
        self._wave.answers["poll told" if status == 200 else f"poll: {status}"] += 1

    async def _ask(self, path: str, *headers: str) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
        address = urlsplit(self._measured.api)
        async with self._gate:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            auth = f"Authorization: Bearer {self._measured.key}"
            lines = [f"GET {path} HTTP/1.1", f"Host: {address.netloc}", auth, "Connection: close", *headers, "", ""]
            writer.write("\r\n".join(lines).encode())
            if not headers:  # a long poll's answer takes its time
                status = await _status(reader)
        if headers:
            status = await _status(reader)
        return status, reader, writer


async def _status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1])


async def gather_and_tell(measured: Measured, *, streams: int, polls: int) -> Wave:
    """Let the crowd in, look at the API, move the jobs, and wait until everybody has been told."""
    wave, gate = Wave(), asyncio.Semaphore(OPENING_AT_ONCE)
    jobs = await asyncio.to_thread(make_queued_jobs, measured)
    paths = [f"/v1/jobs/{encode_id(JOB, job)}" for job in jobs]
    wave.memory_mb["before"] = memory_mb(measured)
    visitor = Visitor(measured, wave, gate)
    crowd = [asyncio.create_task(visitor.stream(paths[n % JOBS])) for n in range(streams)]
    crowd += [asyncio.create_task(visitor.poll(paths[n % JOBS])) for n in range(polls)]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await asyncio.to_thread(waiting_requests, measured) < EVERYBODY * (streams + polls):
            await asyncio.sleep(LOOK_SECONDS)
            if ended := [task for task in crowd if task.done()]:
                await asyncio.gather(*ended)
        wave.memory_mb["all waiting"] = memory_mb(measured)
        wave.connections = await asyncio.to_thread(connections, measured)
        began = time.monotonic()
        await asyncio.to_thread(move, measured, jobs, JobStatus.RUNNING)
        await asyncio.to_thread(move, measured, jobs, JobStatus.SUCCEEDED)
        await asyncio.gather(*crowd)
        wave.told_within_seconds = round(time.monotonic() - began, 2)
    wave.memory_mb["after"] = memory_mb(measured)
    return wave


def make_queued_jobs(measured: Measured) -> list[UUID]:
    """Which nobody claims."""
    with measured.sessions.begin() as session:
        account_id = session.scalars(select(Account.id)).one()
        subject = Subject(account_id=account_id, base_model="mini", keep_photo=False)
        session.add(subject)
        session.flush()
        same = {"account_id": account_id, "subject_id": subject.id, "kind": JobKind.PERSONALIZE, "base_model": "mini"}
        jobs = [Job(**same, seed=n) for n in range(JOBS)]
        session.add_all(jobs)
        session.flush()
        return [job.id for job in jobs]


def move(measured: Measured, jobs: Sequence[UUID], status: JobStatus) -> None:
    """What a worker would do."""
    with measured.sessions.begin() as session:
        session.execute(
            update(Job).where(Job.id.in_(jobs)).values(status=status, attempt=1, expires_at=func.now()),
            execution_options={"synchronize_session": False},
        )


def waiting_requests(measured: Measured) -> int:
    """By the API's own metric."""
    metrics = httpx.get(f"{measured.api}/metrics", timeout=60).raise_for_status().text
    return int(metrics.split("\nhdb_waiting_requests ")[1].split()[0])


def memory_mb(measured: Measured) -> float:
    """Resident, of the API's process."""
    return round(measured.api_process.memory_info().rss / MEGABYTE, 1)


def connections(measured: Measured) -> int:
    """To the database, but for ours that asks, and those of the bare endpoint."""
    with measured.sessions() as session:
        all_of_them = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        count: int = session.execute(text(all_of_them)).scalar_one()
    return count


def raise_own_limit() -> None:
    """The crowd holds as many sockets as the API."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def waves(measured: Measured, *, streams: int, polls: int) -> list[Wave]:
    """One after the other: what the second needs more than the first would be a leak."""
    seen = []
    for _ in range(WAVES):
        seen.append(await gather_and_tell(measured, streams=streams, polls=polls))
        print(json.dumps(vars(seen[-1])), flush=True)
    return seen


def main() -> None:
    """Print what each wave met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--polls", type=int, default=1000)
    asked: Any = parser.parse_args()
    raise_own_limit()
    with measured_service() as measured:
        asyncio.run(waves(measured, streams=asked.streams, polls=asked.polls))


if __name__ == "__main__":
    main()
