"""The service's benchmark in small: real servers, API, housekeeping and worker, on a base model of noise."""

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image

from benchmarks.service.__main__ import main, parse
from benchmarks.service.figures import latency, rate_of, worker_figures
from benchmarks.service.settings import Settings
from benchmarks.service.timed_worker import Span
from benchmarks.service.visits import Visit, poisson
from core.lifecycle import JobKind

JOBS = 4


@pytest.fixture(scope="module")
def document(noisy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("service")
    photo, out = folder / "photo.jpg", folder / "service.json"
    photo.write_bytes(jpeg())
    main(
        Settings(
            batch_sizes=(1, 4),
            jobs=JOBS,
            prompt="{subject}",  # the text encoder of the noisy model reads few tokens
            load=2.0,
            base_model=str(noisy_folder),
            steps=2,
            sample_steps=2,
            photo=photo,
            device="cpu",
        ),
        out,
    )
    assert "| personalize | 4 |" in out.with_suffix(".md").read_text()
    return dict(json.loads(out.read_text()))


def jpeg() -> bytes:
    """Eileen Collins, NASA, public domain."""
    file = io.BytesIO()
    photo = skimage.data.astronaut()  # type: ignore[no-untyped-call]  # scikit-image
    Image.fromarray(photo).save(file, "JPEG")
    return file.getvalue()


def test_each_kind_and_batch_size_has_a_row(document: dict[str, Any]) -> None:
    rows = document["rows"]
    assert [(row["task"], row["batch_size"]) for row in rows] == [
        ("personalize", 1),
        ("generate", 1),
        ("personalize", 4),
        ("generate", 4),
    ]
    for row in rows:
        waits = row["latency_seconds"]
        assert 0 < waits["p50"] <= waits["p95"] <= waits["p99"]
        assert 0 < row["outside_model"] < 1
        assert row["jobs_per_hour"] > 0
        draws = row["task"] == "generate"
        assert row["pictures_per_hour"] == (row["jobs_per_hour"] * 2 if draws else None)


def test_the_worker_claims_what_it_may(document: dict[str, Any]) -> None:
    alone, together = (
        [row["jobs_per_batch"] for row in document["rows"] if row["batch_size"] == size] for size in (1, 4)
    )
    assert alone == [1, 1]
    assert max(together) > 1


def test_arrivals_come_at_the_same_pace_whatever_the_batch_size(document: dict[str, Any]) -> None:
    paces = [row["arrivals_per_hour"] for row in document["rows"]]
    assert paces[:2] == paces[2:]
    assert paces[0] == pytest.approx(2 * document["rows"][0]["jobs_per_hour"])


def visit(submitted: float, started: float, finished: float) -> Visit:
    return Visit("sub_1", submitted, started, finished)


def test_what_the_engine_did_not_do_is_outside_the_model() -> None:
    seen = [visit(0, 1, 5), visit(0, 1, 6), visit(0, 7, 11)]
    spans = [Span(JobKind.PERSONALIZE, jobs, *times) for jobs, *times in [(2, 2.0, 5.0), (1, 8.0, 10.0), (9, 0.0, 0.5)]]
    assert worker_figures(seen, spans) == {"outside_model": 0.5, "jobs_per_batch": 1.5}
    assert rate_of(seen) == 3 / 11


def test_latency_is_a_nearest_rank() -> None:
    seen = [visit(0, 1, seconds) for seconds in range(1, 101)]
    assert [latency(seen, percent) for percent in (50, 95, 99)] == [50, 95, 99]
    assert latency(seen[:1], 50) == 1


def test_arrivals_are_as_frequent_as_asked() -> None:
    arrivals = poisson(4000, per_second=20)
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] == pytest.approx(4000 / 20, rel=0.05)
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    # Exponential: as spread out as long.
    mean = sum(gaps) / len(gaps)
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.1)


def test_the_command_line_names_sizes_and_load() -> None:
    settings, out = parse(["--batch-sizes", "1,4", "--load", "0.5", "--steps", "3", "--out", "x.json"])
    assert (settings.batch_sizes, settings.load, settings.steps, out) == ((1, 4), 0.5, 3, Path("x.json"))
