"""Make the shipped small model from nothing: `python -m hyperdreambooth.recipes.mini` (or `make mini`).

Pictures, autoencoder, base model, aux matrices, fitted people, hypernetwork, a sharper decoder, figures, model card:
seven hours on two CPU cores, or on a GPU with a larger plan. Stopped at any point, it goes on from there;
`--stop-after` stops it in time.
START HERE for how `mini` was made; each stage is a file of its own.
"""

import argparse
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from hyperdreambooth.recipes import (
    evaluate,
    fit_people,
    learn_basis,
    pictures,
    train_base,
    train_decoder,
    train_hypernetwork,
    train_vae,
)
from hyperdreambooth.recipes.model_card import write_model_card
from hyperdreambooth.recipes.progress import say
from hyperdreambooth.recipes.schedule import Deadline, TimeIsUp
from hyperdreambooth.recipes.stage import CPU, StageConfig, WorkConfig, chosen_device

Stage = TypeVar("Stage", bound=WorkConfig)
Training = TypeVar("Training", bound=StageConfig)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How many people are drawn, and how many steps each training takes; about what the shipped weights took."""

    identities: int = pictures.PicturesConfig.identities
    vae_steps: int = train_vae.VaeConfig.steps
    base_steps: int = train_base.BaseConfig.steps
    basis_people: int = learn_basis.LearnBasisConfig.people
    fitted_people: int = fit_people.FitPeopleConfig.people
    fit_steps: int = fit_people.FitPeopleConfig.steps
    hypernetwork_steps: int = train_hypernetwork.TrainHypernetworkConfig.steps
    decoder_steps: int = train_decoder.DecoderConfig.steps


# Of four times the batch (`stage.py`): 6.1 million pictures for the base model. A guess that no run has tested yet.
GPU_PLAN = Plan(
    identities=16_000,
    vae_steps=12_000,
    base_steps=24_000,
    fitted_people=16_000,
    hypernetwork_steps=10_000,
    decoder_steps=4_000,
)


@dataclass(frozen=True, kw_only=True)
class MiniConfig:
    """Where, with what, and for how long."""

    plan: Plan = field(default_factory=Plan)
    work: Path = Path("runs/mini")
    target: Path = Path("hyperdreambooth/mini")
    start: Path | None = None
    device: torch.device = CPU
    deadline: Deadline = field(default_factory=Deadline)
    evaluation: evaluate.EvaluateConfig = field(default_factory=evaluate.EvaluateConfig)


def main(config: MiniConfig) -> None:
    """All stages in order. What is finished is not done again."""
    stages = stages_of(config)
    for place, (name, stage) in enumerate(stages.items()):
        try:
            config.deadline.check("not begun")
            stage()
        except TimeIsUp as stopped:
            left = ", ".join(list(stages)[place + 1 :]) or "nothing"
            say(f"mini  time is up: {name}, {stopped}; after it {left}. The same command goes on")
            return
    say(f"mini  done: {config.target}")


def stages_of(config: MiniConfig) -> dict[str, Callable[[], None]]:
    """What is to be done, by name, in order."""
    plan = config.plan
    people = pictures.PicturesConfig(
        folder=config.work, identities=plan.identities, processes=os.cpu_count() or 1, deadline=config.deadline
    )

    def placed(stage: Stage) -> Stage:
        return replace(stage, pictures=people, deadline=config.deadline, start=config.start).on(config.device)

    def trained(stage: Training, steps: int) -> Training:
        return placed(replace(stage, steps=steps))

    return {
        "pictures": partial(pictures.main, people),
        "vae": partial(train_vae.main, trained(train_vae.VaeConfig(), plan.vae_steps)),
        "base": partial(train_base.main, trained(train_base.BaseConfig(), plan.base_steps)),
        "aux basis": partial(learn_basis.main, placed(learn_basis.LearnBasisConfig(people=plan.basis_people))),
        fit_people.NAME: partial(
            fit_people.main,
            placed(
                fit_people.FitPeopleConfig(
                    people=plan.fitted_people, steps=plan.fit_steps, processes=os.cpu_count() or 1
                )
            ),
        ),
        "hypernetwork": partial(
            train_hypernetwork.main, trained(train_hypernetwork.TrainHypernetworkConfig(), plan.hypernetwork_steps)
        ),
        "decoder": partial(train_decoder.main, trained(train_decoder.DecoderConfig(), plan.decoder_steps)),
        "figures": partial(finish, config),
    }


def finish(config: MiniConfig) -> None:
    """Put the folder where it is shipped from, measure it, and write its card."""
    publish(config.work / "base", config.target)
    evaluation = replace(config.evaluation, folder=config.target, work=config.work, device=config.device)
    write_model_card(config.target, evaluate.main(evaluation))


def publish(made: Path, target: Path) -> None:
    """Replace the shipped folder by the one just made."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(made, target)
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes files that only their owner may read


def parsed(arguments: list[str] | None = None) -> MiniConfig:
    """The command line: the device's own plan, and what is said otherwise."""
    parser = argparse.ArgumentParser(prog="python -m hyperdreambooth.recipes.mini", description=__doc__)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--stop-after", type=float, metavar="MINUTES", help="end cleanly, to be gone on with later")
    parser.add_argument("--work", type=Path, default=MiniConfig.work, help="checkpoints and pictures")
    parser.add_argument("--target", type=Path, default=MiniConfig.target, help="the finished folder: it is replaced")
    parser.add_argument("--from", type=Path, dest="start", metavar="FOLDER", help="start from these weights")
    for number in fields(Plan):
        parser.add_argument(f"--{number.name.replace('_', '-')}", type=int, metavar="N")
    given = parser.parse_args(arguments)
    device = chosen_device(given.device)
    plan = Plan() if device.type == "cpu" else GPU_PLAN
    said = {name: value for name in asdict(plan) if (value := getattr(given, name)) is not None}
    return MiniConfig(
        plan=replace(plan, **said),
        work=given.work,
        target=given.target,
        start=given.start,
        device=device,
        deadline=Deadline(minutes=given.stop_after),
    )


if __name__ == "__main__":
    main(parsed())
