"""What callers do, over HTTP: ask for subjects or pictures, all at once or one by one, and see when they were done."""

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

CALLERS = 8
# Submits the job of this number; gives the answer's document.
Ask = Callable[[int], dict[str, Any]]


@dataclass(frozen=True)
class Visit:
    """One job, in seconds since the epoch; `submitted` is before its request left."""

    subject_id: str
    submitted: float
    started: float
    finished: float

    @property
    def latency(self) -> float:
        return self.finished - self.submitted


def create_subject(client: httpx.Client, photo: bytes) -> Ask:
    def ask(number: int) -> dict[str, Any]:
        form = {"name": f"benchmark {number}", "consent": "self"}
        answer = client.post("/v1/subjects", files={"photo": ("photo.jpg", photo)}, data=form)
        document: dict[str, Any] = answer.raise_for_status().json()
        return document

    return ask


def order_pictures(client: httpx.Client, subjects: Sequence[str], *, prompt: str, pictures: int) -> Ask:
    def ask(number: int) -> dict[str, Any]:
        order = {"prompts": [prompt], "count": pictures, "seed": number}
        answer = client.post(f"/v1/subjects/{subjects[number % len(subjects)]}/generations", json=order)
        document: dict[str, Any] = answer.raise_for_status().json()
        return document

    return ask


def visits(client: httpx.Client, ask: Ask, arrivals: Sequence[float]) -> list[Visit]:
    """One request at each of these seconds from now, whoever still waits; then wait for all."""
    began = time.monotonic()

    def arrive(number: int) -> tuple[float, dict[str, Any]]:
        time.sleep(max(0.0, began + arrivals[number] - time.monotonic()))
        return time.time(), ask(number)

    with ThreadPoolExecutor(CALLERS) as callers:
        submitted = list(callers.map(arrive, range(len(arrivals))))
    return [waited(client, at, document["job"]) for at, document in submitted]


def waited(client: httpx.Client, submitted: float, job: dict[str, Any]) -> Visit:
    """The job when it has ended, by the server's own clock."""
    while job["finished_at"] is None:
        job = client.get(job["links"]["self"], headers={"Prefer": "wait=20"}).raise_for_status().json()
    assert job["status"] == "succeeded", job
    started, finished = (datetime.fromisoformat(job[name]).timestamp() for name in ("started_at", "finished_at"))
    return Visit(job["subject_id"], submitted, started, finished)


def poisson(count: int, *, per_second: float, seed: int = 0) -> list[float]:
    """When each of so many independent callers comes."""
    rng, now, arrivals = random.Random(seed), 0.0, []  # noqa: S311 - arrivals, not secrets
    for _ in range(count):
        now += rng.expovariate(per_second)
        arrivals.append(now)
    return arrivals
