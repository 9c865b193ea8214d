"""CPU per request of the server's process, in turns with the bare endpoint's: the median of the rounds' ratios."""

import contextlib
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import psutil

from benchmarks.api.plan import Plan
from benchmarks.api.service import Measured, selfie, submit


def cpu_ratios(measured: Measured, plan: Plan) -> dict[str, float]:
    """CPU of each call over the bare endpoint's, which answers with the same status and bytes."""
    with (
        httpx.Client(base_url=measured.api, headers=measured.headers) as api,
        httpx.Client(base_url=measured.bare, headers=measured.headers) as bare,
    ):
        known = {"If-None-Match": api.get(measured.job_path).headers["ETag"]}
        ask = partial(cpu_per_request, plan=plan)
        sides: tuple[Callable[[], float], ...] = (
            lambda: ask(measured.api_process, api, measured.job_path, 304, headers=known),
            lambda: ask(measured.bare_process, bare, "/empty", 304),
            lambda: ask(measured.api_process, api, measured.job_path, 200),
            lambda: ask(measured.bare_process, bare, "/bare", 200),
        )
        rounds = [tuple(side() for side in sides) for _ in range(plan.rounds)]
        create = cpu_of_create(measured, api, plan)
    return {
        "poll_304": round(statistics.median(poll / base for poll, base, _, _ in rounds), 2),
        "poll_body": round(statistics.median(poll / base for _, _, poll, base in rounds), 2),
        "create": round(create / statistics.median(base for *_, base in rounds), 2),
    }


def cpu_per_request(
    process: psutil.Process,
    client: httpx.Client,
    path: str,
    status: int,
    *,
    plan: Plan,
    headers: dict[str, str] | None = None,
) -> float:
    """User and system seconds of the server for one request, on a connection that stays open."""
    for _ in range(plan.warm_up):
        answer = client.get(path, headers=headers)
        assert answer.status_code == status, answer.text
    before = cpu_seconds(process)
    for _ in range(plan.requests):
        client.get(path, headers=headers)
    return (cpu_seconds(process) - before) / plan.requests


def cpu_of_create(measured: Measured, api: httpx.Client, plan: Plan) -> float:
    """The same for `POST /v1/subjects` with a JPEG of 50 kB, decoders included."""
    photo = selfie()
    submit(api, photo)
    before = cpu_seconds(measured.api_process)
    for _ in range(plan.creates):
        submit(api, photo)
    return (cpu_seconds(measured.api_process) - before) / plan.creates


def cpu_seconds(process: psutil.Process) -> float:
    """Of the process and its children."""
    return sum(map(own_cpu_seconds, (process, *process.children(recursive=True))))


def own_cpu_seconds(process: psutil.Process) -> float:
    """On Linux to the nanosecond, by the scheduler's own count; elsewhere in ticks of 10 ms."""
    seconds = 0.0
    tasks = Path(f"/proc/{process.pid}/task")
    if not tasks.is_dir() or not Path(f"/proc/{process.pid}/schedstat").exists():
        times = process.cpu_times()
        return times.user + times.system
    for task in tasks.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that ended
            seconds += int((task / "schedstat").read_text().split()[0]) / 1e9
    return seconds
