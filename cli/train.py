"""`hdb train`: a base model, fitted people, a hypernetwork, on any diffusers folder and any pictures.

Several processes or GPUs: `accelerate launch -m cli.main train hypernetwork ...`. A run that was stopped goes on where
it was when the same command is given again.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.errors import StackError
from cli.output import plain_errors

if TYPE_CHECKING:
    from hyperdreambooth.training.config import RunConfig

train = typer.Typer(no_args_is_help=True, help="Train on your own pictures; goes on where it was stopped.")
Config = TypeVar("Config", bound="RunConfig")
TRAININGS = {
    "base": "Train a base model's UNet and text encoder on captioned pictures (a .txt beside each).",
    "fit": "Fit a LiDB to each person, many at once: targets for a hypernetwork with beta > 0.",
    "hypernetwork": "Train a hypernetwork on faces, a folder for each person or a file for each.",
}

BaseModelArgument = Annotated[str, typer.Argument(help="A diffusers folder or a hub id.")]
PicturesArgument = Annotated[str, typer.Argument(help="A folder, or a WebDataset: faces-{000..015}.tar")]
OutputOption = Annotated[str | None, typer.Option(help="The run's folder.")]
ConfigOption = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="A config.json of another run.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="name=value, of hyperdreambooth/training/config.py")]


def _add_command(name: str, description: str) -> None:
    """`hdb train NAME`: the module of that name in `hyperdreambooth.training`."""

    @train.command(name, help=description)
    def command(
        base_model: BaseModelArgument,
        pictures: PicturesArgument,
        output: OutputOption = None,
        config: ConfigOption = None,
        values: SetOption = None,
    ) -> None:
        from hyperdreambooth.training.config import CONFIGS
        from hyperdreambooth.training.pictures import NoPictures
        from hyperdreambooth.training.run import OtherRun

        main = import_module(f"hyperdreambooth.training.{name}").main
        with plain_errors():
            try:
                given = CONFIGS[name](base_model=base_model, pictures=pictures)
                main(configured(given, output, config, values or ()))
            except (NoPictures, OtherRun) as error:
                raise StackError(str(error)) from error


for name, description in TRAININGS.items():
    _add_command(name, description)


def configured(given: Config, output: str | None, config: Path | None, values: Sequence[str]) -> Config:
    """Defaults, then the file, then what was said on the command line."""
    from hyperdreambooth.config import from_json

    said: dict[str, object] = json.loads(config.read_text()) if config else {}
    said |= {"base_model": given.base_model, "pictures": given.pictures}
    if output is not None:
        said["output"] = output
    names = {field.name for field in fields(given)}
    for value in values:
        name, _, text = value.partition("=")
        parts = name.split(".")
        if parts[0] not in names:
            raise StackError(f"There is no setting {name}.", hint=f"There are: {', '.join(sorted(names))}.")
        _put(said, parts, _parsed(text), asdict(given))
    try:
        return from_json(type(given), json.dumps(said))
    except (TypeError, ValueError) as error:
        raise StackError(f"The settings can't be read: {error}") from error


def _put(said: dict[str, object], parts: Sequence[str], value: object, defaults: dict[str, object]) -> None:
    """`finetune.steps=40` changes one number of a group."""
    *groups, name = parts
    for group in groups:
        inner = said.setdefault(group, defaults.get(group, {}))
        if not isinstance(inner, dict):
            raise StackError(f"{group} is no group of settings.")
        said, defaults = inner, inner
    said[name] = value


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
