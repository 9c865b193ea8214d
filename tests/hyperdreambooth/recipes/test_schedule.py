"""Budgets count minutes over all runs, and learning rates follow them."""

import time

import pytest
import torch
from torch import nn

from hyperdreambooth.recipes.schedule import Budget, set_learning_rate


def budget(*, seconds: float, steps: int = 1000) -> Budget:
    """One of a hundred seconds, so far into it."""
    made = Budget(minutes=100 / 60, flat_share=0.5, warmup_steps=10, began=time.monotonic())
    made.resume({"steps": steps, "seconds": seconds})
    return made


def test_the_rate_warms_up_stays_flat_and_falls_to_zero() -> None:
    assert budget(seconds=0, steps=0).factor() == pytest.approx(0.1)
    assert budget(seconds=40).factor() == pytest.approx(1)
    assert budget(seconds=75).factor() == pytest.approx(0.5, abs=0.01)
    assert budget(seconds=99.9).factor() < 0.01


def test_a_resumed_budget_goes_on_where_it_stopped() -> None:
    first = budget(seconds=60)
    first.advance()
    resumed = Budget(minutes=100 / 60, flat_share=0.5, warmup_steps=10)
    resumed.resume(first.state())
    assert resumed.steps == 1001
    assert resumed.advance() <= 1  # seconds of earlier runs are not told again
    assert resumed.steps == 1002
    assert resumed.share() == pytest.approx(0.6, abs=0.01)
    assert resumed.left()
    assert not budget(seconds=100).left()


def test_time_for_a_checkpoint_comes_once_in_so_many_minutes() -> None:
    made = Budget(minutes=10, flat_share=0, warmup_steps=1, began=time.monotonic() - 61)
    assert made.every(minutes=1)
    assert not made.every(minutes=1)


def test_advance_returns_every_second_once() -> None:
    made = Budget(minutes=10, flat_share=0, warmup_steps=1, began=time.monotonic() - 5.5)
    assert made.advance() == 5
    assert made.advance() == 0
    assert made.steps == 2


def test_each_group_keeps_its_own_full_rate() -> None:
    groups = [{"params": nn.Linear(1, 1).parameters(), "lr": rate} for rate in (1.0, 0.1)]
    adam = torch.optim.AdamW(groups)
    for factor in (0.5, 0.25):
        set_learning_rate([adam], factor)
    assert [group["lr"] for group in adam.param_groups] == pytest.approx([0.25, 0.025])
