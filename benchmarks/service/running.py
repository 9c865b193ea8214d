"""The whole service for the length of a `with`: embedded servers, API, housekeeping, and the worker with its clock."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.service.settings import Settings
from benchmarks.service.timed_worker import SPANS, Span, read_spans
from cli.ports import free_ports
from cli.services import Service
from cli.stack import Stack
from core.settings import Settings as ServiceSettings
from hyperdreambooth.config import PERSONALIZATION_FILE, load_personalize_config, to_json
from hyperdreambooth.diffusion import base_model_folder
from hyperdreambooth.shipped import MINI

START_SECONDS = 600
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Running:
    """Where to ask, and what the engine noted."""

    url: str
    key: str
    spans_file: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)

    def spans(self) -> list[Span]:
        return read_spans(self.spans_file)


@contextmanager
def running_service(settings: Settings, folder: Path, *, batch_size: int) -> Iterator[Running]:
    """A service of its own in an empty folder, ready to work."""
    folder.mkdir(parents=True)
    given = {"batch_size": str(batch_size), "device": settings.device, "base_model": base_model(settings, folder)}
    stack = Stack(folder / "stack", ServiceSettings(), lambda line: None, port=free_ports(1)[0], defaults=given)
    spans = folder / "spans.jsonl"
    api, worker, housekeeping = stack.services
    stack.services = (api, timed(worker, spans), housekeeping)
    try:
        key = stack.start()
        assert key is not None, "a first start makes a key"
        running = Running(stack.url, key, spans)
        wait_ready(running)
        yield running
    finally:
        stack.stop()


def timed(worker: Service, spans: Path) -> Service:
    """The stack's worker, with our engine around its own."""
    return Service(
        worker.name,
        "benchmarks.service.timed_worker",
        "gpu",
        log=spans.with_name("worker.log"),
        env={**worker.env, SPANS: str(spans)},
        stop_seconds=worker.stop_seconds,
    )


def wait_ready(running: Running) -> None:
    """Until a worker has loaded its networks."""
    deadline = time.monotonic() + START_SECONDS
    with running.client() as client:
        while client.get("/readyz").json()["checks"]["worker"] != "ok":
            assert time.monotonic() < deadline, running.spans_file.with_name("worker.log").read_text()[-2000:]
            time.sleep(POLL_SECONDS)


def base_model(settings: Settings, folder: Path) -> str:
    """The model as it is; with other numbers of steps, a folder of links beside its own wishes."""
    if settings.steps is None and settings.sample_steps is None:
        return settings.base_model
    source = (MINI if settings.base_model == "mini" else base_model_folder(settings.base_model)).resolve()
    copy = folder / source.name
    copy.mkdir()
    for path in source.iterdir():
        if path.name != PERSONALIZATION_FILE:
            (copy / path.name).symlink_to(path)
    wishes = json.loads(to_json(load_personalize_config(source)))
    for name, key, steps in (
        ("finetune", "steps", settings.steps),
        ("finetune_from_start", "steps", settings.steps),
        ("sample", "steps", settings.sample_steps),
    ):
        wishes[name] |= {key: steps} if steps else {}
    (copy / PERSONALIZATION_FILE).write_text(json.dumps(wishes))
    return str(copy)
