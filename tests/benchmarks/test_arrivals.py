import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.many_subjects.arrivals import compare, interpolated, main, served
from benchmarks.many_subjects.settings import Settings
from tests.hyperdreambooth.conftest import write_tiny_folder

STEPS = 10


def proportional(size: int) -> float:
    """A processor that is busy with one subject already."""
    return float(size)


def flat(size: int) -> float:
    """A GPU on which neighbours cost nothing."""
    return 1.0


@pytest.mark.parametrize("joins", [False, True])
def test_one_person_takes_all_steps_from_the_arrival_on(joins: bool) -> None:
    ended, in_flight = served([3.0], proportional, steps=STEPS, largest=4, joins=joins)
    assert (ended.tolist(), in_flight) == ([13.0], 1.0)


def test_who_arrives_late_waits_for_the_batch_or_joins_it() -> None:
    waited, _ = served([0.0, 2.5], flat, steps=STEPS, largest=4, joins=False)
    joined, _ = served([0.0, 2.5], flat, steps=STEPS, largest=4, joins=True)
    assert waited.tolist() == [10.0, 20.0]
    assert joined.tolist() == [10.0, 13.0]  # at the next step's boundary


def test_a_full_batch_takes_nobody_in() -> None:
    ended, in_flight = served([0.0] * 5, flat, steps=STEPS, largest=2, joins=True)
    assert ended.tolist() == [10.0, 10.0, 20.0, 20.0, 30.0]
    assert in_flight == pytest.approx(5 / 3)


def test_joining_pays_where_neighbours_cost_nothing_and_not_where_they_cost_all() -> None:
    for step_seconds, pays in ((flat, True), (proportional, False)):
        rows = compare(step_seconds, steps=STEPS, largest=8, people=400, seed=0)
        waits, joins = (row.p50 for row in rows if row.load == 0.9)
        assert (joins < waits) == pays


def test_between_two_sizes_lies_a_straight_line() -> None:
    assert interpolated({4: 3.0, 1: 1.0, 2: 2.0})(3) == 2.5


def test_the_command_measures_steps_and_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_folder(tmp_path / "tiny", prediction_type="v_prediction")
    settings = Settings(model=str(tmp_path / "tiny"), device="cpu", subjects=(1, 2))
    rows = main(settings, tmp_path / "out.json", people=20)
    document = json.loads((tmp_path / "out.json").read_text())
    assert len(document["rows"]) == len(rows) == 6
    assert all(seconds > 0 for seconds in document["step_seconds"].values())
    assert np.isfinite([row.p95 for row in rows]).all()
    assert "| 0.9 | joins |" in capsys.readouterr().out
