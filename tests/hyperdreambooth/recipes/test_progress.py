"""Progress lines: now and then, with what is left at this run's own speed."""

import time

import pytest

from hyperdreambooth.recipes.progress import Clock, Progress


def test_the_time_left_counts_only_this_runs_speed(capsys: pytest.CaptureFixture[str]) -> None:
    # Ten of a hundred steps in a minute, after fifty in an earlier run: forty are left, at six seconds each.
    clock = Clock(began=time.monotonic() - 60)
    progress = Progress("base", total=100, done=50, clock=clock)
    progress.advance(10, loss=0.25)
    line = capsys.readouterr().out
    assert "60/100 steps" in line
    assert "4.0 min left" in line
    assert "loss 0.25" in line


def test_lines_keep_their_distance_and_the_last_one_always_comes(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("base", total=3, every=20, clock=Clock(began=time.monotonic() - 21))
    progress.advance()
    progress.advance()
    assert capsys.readouterr().out.count("\n") == 1
    progress.advance()
    assert "3/3" in capsys.readouterr().out
