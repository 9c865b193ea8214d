"""`hdb demo`, whole: real servers, the shipped model, a phone."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image
from safetensors import safe_open

from tests.cli.test_up import wait_until

MINUTES = 10
pytestmark = pytest.mark.slow


class Demo:
    """One run of `hdb demo`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.output = folder, folder / "output"
        command = [sys.executable, "-m", "cli.main", "demo", "--directory", str(folder / "data")]
        with (folder / "text").open("wb") as text:
            self.process = subprocess.Popen(
                [*command, "--output", str(self.output), *options], stdout=text, stderr=text, start_new_session=True
            )

    def text(self) -> str:
        return (self.folder / "text").read_text()

    def wait(self) -> int:
        return self.process.wait(MINUTES * 60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("demo")
    yield folder
    left = [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]
    assert not left, left


def test_a_worker_that_is_killed_is_replaced_and_the_demo_succeeds(folder: Path) -> None:
    demo = Demo(folder)
    wait_until(lambda: "finetuning" in demo.text() or demo.process.poll() is not None, demo.text, MINUTES * 60)
    assert demo.process.poll() is None, demo.text()
    for child in psutil.Process(demo.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a health check that has just ended
            if "worker.main gpu" in " ".join(child.cmdline()):
                child.kill()
    assert demo.wait() == 0, demo.text()
    assert "worker is back" in demo.text()
    assert re.search(r"personalize .* finetuning .* 2", demo.text()), "the table shows attempt 2"


def test_the_results_are_files_that_other_programs_open(folder: Path) -> None:
    output = folder / "output"
    width, height = size_of(output / "grid.png")
    assert width > 4 * height > 1000
    with safe_open(output / "weights.safetensors", framework="np") as weights:
        assert weights.metadata()["format"] == "lidb/2"
    assert size_of(output / "photo.png") == (384, 384)
    assert {"pencil-sketch-1.png", "oil-painting-2.png"} <= {path.name for path in (output / "pictures").iterdir()}


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as opened:
        return opened.size


def test_a_photo_without_a_face_is_refused_in_words(folder: Path) -> None:
    wall = folder / "wall.png"
    Image.effect_noise((400, 400), 60).convert("RGB").save(wall)
    demo = Demo(folder, "--photo", str(wall))
    assert demo.wait() == 1, demo.text()
    assert "no_face" in demo.text()
    assert "Traceback" not in demo.text()


def test_a_file_that_is_no_picture_is_refused_in_words(folder: Path) -> None:
    text = folder / "me.jpg"
    text.write_text("I am a picture, believe me.")
    demo = Demo(folder, "--photo", str(text))
    assert demo.wait() == 1, demo.text()
    assert "photo_unsupported" in demo.text()
    assert "Traceback" not in demo.text()
