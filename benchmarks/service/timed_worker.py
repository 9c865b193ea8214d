"""The real worker, whose engine writes down when it computes: `python -m benchmarks.service.timed_worker gpu`."""

import json
import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

from core.lifecycle import JobKind, WorkerRole
from core.settings import Settings
from worker.attempts import OnStep
from worker.engine import load_engine
from worker.generate import GenerateRequest, Picture
from worker.main import main
from worker.personalize import PersonalizeRequest
from worker.presence import Serves
from worker.process import Engine

SPANS = "BENCHMARK_SPANS"  # an environment variable: the file


@dataclass(frozen=True)
class Span:
    """One batch in the engine, in seconds since the epoch."""

    kind: JobKind
    jobs: int
    began: float
    ended: float


class TimedEngine:
    """An engine, with the beginning and the end of each of its batches."""

    def __init__(self, engine: Engine, spans: Path) -> None:
        self._engine, self._spans = engine, spans

    @property
    def serves(self) -> Serves:
        return self._engine.serves

    def personalize(self, requests: Sequence[PersonalizeRequest], on_step: OnStep) -> Sequence[bytes | Exception]:
        with self._noted(JobKind.PERSONALIZE, len(requests)):
            return self._engine.personalize(requests, on_step)

    def generate(self, requests: Sequence[GenerateRequest], on_step: OnStep) -> Sequence[Sequence[Picture] | Exception]:
        with self._noted(JobKind.GENERATE, len(requests)):
            return self._engine.generate(requests, on_step)

    def remembered(self) -> Collection[UUID]:
        return self._engine.remembered()

    def forget(self, subjects: Collection[UUID]) -> None:
        self._engine.forget(subjects)

    @contextmanager
    def _noted(self, kind: JobKind, jobs: int) -> Iterator[None]:
        began = time.time()
        yield
        with self._spans.open("a") as file:
            file.write(json.dumps(asdict(Span(kind, jobs, began, time.time()))) + "\n")


def load_timed_engine(settings: Settings) -> TimedEngine:
    """What the worker loads in the engine's place."""
    return TimedEngine(load_engine(settings), Path(os.environ[SPANS]))


def read_spans(path: Path) -> list[Span]:
    """What the engine has written."""
    documents = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [Span(**document | {"kind": JobKind(document["kind"])}) for document in documents]


if __name__ == "__main__":
    sys.exit(main(WorkerRole(sys.argv[1]), engine="benchmarks.service.timed_worker:load_timed_engine"))
