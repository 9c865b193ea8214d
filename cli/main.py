"""`hdb`: what a person types. `cli/stack.py` runs the service, `cli/demo.py` plays the phone."""

import json
import sys
from os.path import relpath
from pathlib import Path
from typing import Annotated

import typer

from cli.callers import HERE, accounts, keys, known_settings
from cli.output import console, plain_errors, say
from cli.train import train
from core.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(accounts, name="accounts")
app.add_typer(keys, name="keys")
app.add_typer(train, name="train")

DirectoryOption = Annotated[Path, typer.Option(help="Where the servers keep their data.")]
PortOption = Annotated[int | None, typer.Option(help="Where the API listens; 8000 or the next free one if not given.")]


@app.command()
def up(directory: DirectoryOption = HERE, port: PortOption = None) -> None:
    """Start the whole service here and keep it running; Ctrl-C stops it in order."""
    from cli.first_start import FIRST_ACCOUNT
    from cli.stack import running_stack

    with plain_errors(), running_stack(directory, Settings(), say, port=port) as (stack, key):
        if key:
            console.print(f"API key, shown this once: [bold]{key}[/]")
        else:
            say(f"for another API key: {relpath(Path(sys.executable).with_name('hdb'))} keys create {FIRST_ACCOUNT}")
        console.print(f"[bold]{stack.url}/docs[/]   data and logs in {stack.directory}   Ctrl-C stops")
        stack.run_until(lambda: False)


@app.command()
def demo(
    photo: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="A photo with one face.")] = None,
    output: Annotated[Path, typer.Option(help="Where the results go.")] = Path("demo-output"),
    directory: DirectoryOption = Path(".hdb-demo"),
) -> None:
    """One photo through the whole service, as a phone would see it; everything is stopped afterwards."""
    from cli.demo import run_demo

    with plain_errors():
        run_demo(directory, output, photo)


@app.command()
def migrate(directory: DirectoryOption = HERE) -> None:
    """Bring the database to this release's tables, and make the bucket."""
    from core.storage import ObjectStore
    from migrations.upgrade import upgrade

    with plain_errors():
        settings = known_settings(directory)
        upgrade(settings.database_url.get_secret_value())
        ObjectStore(settings).create_bucket()
        say("The tables and the bucket are up to date.")


@app.command()
def openapi(output: Annotated[Path, typer.Argument(help="The file to write.")] = Path("docs/openapi.json")) -> None:
    """Write down the API's contract."""
    from app.main import create_app

    output.write_text(json.dumps(create_app(Settings()).openapi(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    app()
