"""One training run: accelerate, checkpoints, exact resume, TensorBoard. What is trained is the caller's.

Nothing random is carried from step to step: each step draws from a generator made of the seed, the step and the
process. A run that was killed and resumed is therefore, number for number, the run that was not.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from PIL import Image
from torch import Tensor, nn

from hyperdreambooth.config import from_json, to_json
from hyperdreambooth.finetune import learning_rate
from hyperdreambooth.recipes.progress import Progress, say
from hyperdreambooth.training.config import RunConfig, StepsRunConfig

PATIENCE = timedelta(hours=12)  # of the other processes while the first one finds, cuts and encodes all pictures
CONFIG, STATE, PART = "config.json", "state.json", ".part"
Report = Callable[[int], None]


class OtherRun(ValueError):
    """The output folder holds a run with another config."""


class Run:
    """A run and its folder: `config.json`, `checkpoints/`, `sheets/`, `tensorboard/`."""

    def __init__(self, config: StepsRunConfig, accelerator: Accelerator) -> None:
        self.config, self.accelerator, self.folder = config, accelerator, config.folder
        self.step = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return bool(self.accelerator.is_main_process)

    def generator(self) -> torch.Generator:
        """The numbers of this step on this process."""
        number = np.random.SeedSequence([self.config.seed, self.step, self.accelerator.process_index])
        return torch.Generator().manual_seed(int(number.generate_state(1, np.uint64)[0] >> 1))

    def learning_rate(self) -> float:
        """Of the step that comes next: a function of its number alone."""
        return learning_rate(self.step + 1, self.config)

    def optimize(self, optimizer: torch.optim.Optimizer, network: nn.Module, loss: Tensor) -> None:
        """One step down the loss."""
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients:
            self.accelerator.clip_grad_norm_(network.parameters(), self.config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def steps(self, name: str, show: Report) -> Iterator["Run"]:
        """Every step that is left; figures logged in it are shown, checkpoints written and `show` called in time."""
        self._losses: list[float] = []
        progress = Progress(name, total=self.config.steps, done=self.step)
        while self.step < self.config.steps:
            yield self
            self.step += 1
            last = self.step == self.config.steps
            if self.is_main:
                recent = self._losses[-50:]
                figures = {"loss": sum(recent) / len(recent)} if recent else {}
                progress.advance(1, **figures)
            if last or self.step % self.config.save_every == 0:
                self.save()
            if last or self.step % self.config.show_every == 0:
                if self.is_main:
                    show(self.step)
                self.accelerator.wait_for_everyone()

    def log(self, **figures: float) -> None:
        """Figures of this step, averaged over the processes, for TensorBoard; `loss` is in the progress line too."""
        means = self.accelerator.reduce(torch.tensor(list(figures.values()), device=self.accelerator.device), "mean")
        averaged = dict(zip(figures, means.tolist(), strict=True))
        if "loss" in averaged:
            self._losses.append(averaged["loss"])
            del self._losses[:-50]
        self.accelerator.log(averaged, step=self.step)

    def note(self, **figures: float) -> None:
        """Figures that the main process alone knows."""
        self.accelerator.log(figures, step=self.step)

    def save(self) -> None:
        """A checkpoint: written aside and renamed, so that half of one is never found."""
        folder = self.folder / "checkpoints" / f"{self.step:07d}"
        aside = folder.with_suffix(PART)
        self.accelerator.save_state(str(aside))
        self.accelerator.wait_for_everyone()
        if self.is_main:
            (aside / STATE).write_text(json.dumps({"step": self.step}))
            shutil.copy(self.folder / CONFIG, aside / CONFIG)
            aside.replace(folder)
            for old in _checkpoints(self.folder)[: -self.config.checkpoints]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one. What is trained has been prepared before."""
        found = _checkpoints(self.folder)
        if found:
            self.accelerator.load_state(str(found[-1]))
            self.step = int(json.loads((found[-1] / STATE).read_text())["step"])
            say(f"going on from step {self.step}")


def open_run(config: StepsRunConfig) -> Run:
    """A run in its folder."""
    return Run(config, open_folder(config))


def open_folder(config: RunConfig) -> Accelerator:
    """Make or find the run's folder. OtherRun where it holds a run that was told something else."""
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        log_with="tensorboard",
        project_dir=str(config.folder / "tensorboard"),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    path = config.folder / CONFIG
    if path.exists():  # on every process: nobody waits for one that has given up
        _refuse_other(from_json(type(config), path.read_text()), config)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        config.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(config) + "\n")
        for leftover in (config.folder / "checkpoints").glob(f"*{PART}"):
            shutil.rmtree(leftover)
    accelerator.wait_for_everyone()
    accelerator.init_trackers(config.folder.name)
    return accelerator


def show_sheet(accelerator: Accelerator, folder: Path, name: str, sheet: Image.Image, *, step: int) -> None:
    """A picture for eyes, in the run's folder and in TensorBoard."""
    path = folder / "sheets" / f"{name}-{step:07d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    tracker = accelerator.get_tracker("tensorboard")
    tracker.log_images({name: np.asarray(sheet)[None]}, step=step, dataformats="NHWC")


def _refuse_other(before: RunConfig, now: RunConfig) -> None:
    """A longer run is the same run: `steps` may grow."""
    theirs = asdict(before)
    changed = [name for name, value in asdict(now).items() if theirs[name] != value and name != "steps"]
    if changed:
        raise OtherRun(f"{now.output} holds a run with another {', '.join(changed)}: choose another --output")


def _checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path for path in (folder / "checkpoints").glob("*") if path.suffix != PART)
