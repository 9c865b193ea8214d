"""Four people with a few photos each, made of one real photograph."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from PIL import Image, ImageOps
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hyperdreambooth.config import HypernetworkConfig, to_json
from hyperdreambooth.training.config import HypernetworkRunConfig, RunConfig

TINTS = ("white", "red", "green", "blue")


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory, photo: Image.Image) -> Path:
    """A folder for each of three people, one file for the fourth, a caption, and a picture without a face."""
    folder = tmp_path_factory.mktemp("people")
    for number, tint in enumerate(TINTS):
        tinted = Image.blend(photo, Image.new("RGB", photo.size, tint), 0.2)
        if number == 3:
            tinted.save(folder / "alone.jpg")
            break
        own = folder / f"person-{number}"
        own.mkdir()
        tinted.save(own / "1.jpg")
        ImageOps.mirror(tinted).save(own / "2.png")
    (folder / "person-0" / "1.txt").write_text("a photo of a person\n")
    Image.new("RGB", (200, 200), "gray").save(folder / "nobody.png")
    return folder


def shown(folder: Path) -> dict[str, list[str]]:
    """What TensorBoard has of a run, by kind."""
    (events,) = (folder / "tensorboard").rglob("events.*")
    return dict(EventAccumulator(str(events)).Reload().Tags())


@pytest.fixture
def hypernetwork_run(tiny_folder: Path, faces: Path, tmp_path: Path) -> HypernetworkRunConfig:
    """A run of seconds."""
    return HypernetworkRunConfig(
        base_model=str(tiny_folder),
        pictures=str(faces),
        output=str(tmp_path / "run"),
        hypernetwork=HypernetworkConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1),
        steps=6,
        batch=2,
        warmup_steps=2,
        learning_rate=1e-3,
        save_every=2,
        show_every=6,
        held_out=1,
    )


def train_in_two_processes(kind: str, told: RunConfig, scratch: Path) -> subprocess.CompletedProcess[str]:
    """`hdb train` as accelerate starts it, on the CPU."""
    (scratch / "told.json").write_text(to_json(told))
    launch = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    command = ["-m", "cli.main", "train", kind, told.base_model, told.pictures]
    return subprocess.run(
        [sys.executable, *launch, *command, "--config", str(scratch / "told.json")],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps what the first run of a process was told."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
