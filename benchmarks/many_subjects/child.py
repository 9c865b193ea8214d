"""A process for each method: peaks of memory are its own, and what a method leaves in a model reaches no other."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.many_subjects.bench import Bench
from benchmarks.many_subjects.settings import Method, Settings

STOP_SECONDS = 60


class OutOfMemory(Exception):
    """The GPU can't hold this batch."""


@dataclass(frozen=True)
class Child:
    """The parent's end: ask for one of `Bench`'s methods, wait for its answer. Nobody else computes meanwhile."""

    connection: Connection

    def ask(self, question: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever that method answers
        self.connection.send((question, arguments))
        answer = self.connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def child_of(settings: Settings, method: Method) -> Iterator[Child]:
    """A method's process for the length of a `with`."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, settings, method), name=method, daemon=True)
    process.start()
    theirs.close()
    try:
        yield Child(ours)
    finally:
        ours.close()
        process.join(STOP_SECONDS)
        process.kill()


def serve(connection: Connection, settings: Settings, method: Method) -> None:
    """Answer until the parent hangs up."""
    bench: Bench | None = None
    while True:
        try:
            question, arguments = connection.recv()
        except EOFError:
            return
        try:
            bench = bench or Bench(settings, method)
            answer = getattr(bench, question)(*arguments)
        except torch.OutOfMemoryError:
            answer = OutOfMemory()
        except Exception as error:
            error.add_note(f"in the process of {method}")
            answer = error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the other methods' processes need what this one only keeps
        connection.send(answer)
