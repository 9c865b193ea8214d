"""`hdb`: what a person types. `cli/stack.py` runs the service, `cli/demo.py` plays the phone."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from cli.errors import Refused, StackError
from core.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)

DirectoryOption = Annotated[Path, typer.Option(help="Where the servers keep their data.")]
PortOption = Annotated[
    int | None, typer.Option(help="Where the API listens; 8000, or the next free port, if not given.")
]


@contextmanager
def plain_errors() -> Iterator[None]:
    """What a person can cause is told in a line or two; signals end the program in order."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        yield
    except StackError as error:
        console.print(f"[bold red]{error}[/]" + (f"\n{error.hint}" if error.hint else ""))
        raise typer.Exit(1) from None
    except Refused as error:
        console.print(f"[bold red]{error.code}[/]: {error}")
        raise typer.Exit(1) from None
    except PermissionError as error:
        console.print(
            f"[bold red]No permission for {error.filename}.[/]\nAnother user made it: choose another --directory."
        )
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _leave(number: int, _frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


@app.command()
def up(directory: DirectoryOption = Path(".hdb"), port: PortOption = None) -> None:
    """Start the whole service here and keep it running; Ctrl-C stops it in order."""
    from cli.stack import running_stack

    with plain_errors(), running_stack(directory, Settings(), console.print, port=port) as (stack, key):
        if key:
            console.print(f"API key, shown this once: [bold]{key}[/]")
        console.print(f"[bold]{stack.url}/docs[/]   data and logs in {stack.directory}   Ctrl-C stops")
        stack.run_until(lambda: False)


if __name__ == "__main__":
    app()
