"""What a person sees: lines, and errors without tracebacks."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from cli.errors import Refused, StackError

console = Console(highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line, as it is."""
    console.print(line, markup=False)


@contextmanager
def plain_errors() -> Iterator[None]:
    """What a person can cause is told in a line or two, with exit code 1; signals end the program in order."""
    with _orderly_signals():
        try:
            yield
        except StackError as error:
            _fail(str(error), hint=error.hint)
        except Refused as error:
            _fail(f"{error.code}: {error}")
        except PermissionError as error:
            _fail(f"No permission for {error.filename}.", hint="Another user made it: choose another --directory.")
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


@contextmanager
def _orderly_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the program; so does Ctrl-C, which shells switch off for what ends in `&`."""
    orderly = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _leave, signal.SIGHUP: _leave}
    before = {number: signal.signal(number, handler) for number, handler in orderly.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(message: str, *, hint: str | None = None) -> NoReturn:
    console.print(f"[bold red]{escape(message)}[/]")
    if hint:
        say(hint)
    raise typer.Exit(1)


def _leave(number: int, _frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)
