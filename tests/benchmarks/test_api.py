"""The benchmark of the API, in small: its figures mean nothing here, but that it runs does."""

import json
import os
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks.api.__main__ import measure, table
from benchmarks.api.cpu import own_cpu_seconds
from benchmarks.api.latency import percentile
from benchmarks.api.plan import SMALL
from benchmarks.api.service import measured_service, selfie
from tests.fakes import FOLDER

QUICK_WORKER = "tests.worker.worker_with_fake_engine"  # needs no networks


@pytest.mark.slow
def test_a_small_run_has_every_figure_and_prints_nothing_else(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with measured_service() as measured:
        environment = measured.environment | {FOLDER: str(tmp_path)}
        result = measure(replace(measured, environment=environment, worker=QUICK_WORKER), SMALL)
    printed, complaints = capfd.readouterr()
    assert ([json.loads(line) for line in printed.splitlines()], complaints) == (
        [{name: value} for name, value in result.items()],
        "",
    )
    ratios, starts = result["ratios"], result["submit_to_start_ms"]
    assert set(ratios) == {"poll_304", "poll_body", "create"}
    assert all(ratio > 0.1 for ratio in ratios.values())
    assert 0 < starts["p50"] <= starts["p99"]
    assert result["p99_over_p50"] >= 1
    assert table(result).count("\n") == 6


def test_cpu_is_counted_while_it_is_spent() -> None:
    me = psutil.Process()
    before, spent = own_cpu_seconds(me), os.times()
    while os.times().user - spent.user < 0.1:
        pass
    assert 0.05 < own_cpu_seconds(me) - before < 5


def test_the_selfie_has_the_size_it_should() -> None:
    assert 30_000 < len(selfie(50)) <= 50_000


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert [percentile([float(n) for n in range(1, 101)], percent) for percent in (50, 99)] == [51, 100]
