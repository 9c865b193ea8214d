"""Budgets count steps over all runs, learning rates follow them, and a run stops in time."""

import time

import pytest
import torch
from torch import nn

from hyperdreambooth.recipes.progress import Clock
from hyperdreambooth.recipes.schedule import Budget, Deadline, TimeIsUp, set_learning_rate


def budget(*, steps: int, deadline: Deadline | None = None) -> Budget:
    """One of a hundred steps, so far into it."""
    made = Budget(total=100, flat_share=0.5, warmup_steps=10, deadline=deadline or Deadline())
    made.resume({"steps": steps})
    return made


def test_the_rate_warms_up_stays_flat_and_falls_to_zero() -> None:
    assert budget(steps=0).factor() == pytest.approx(0.1)
    assert budget(steps=40).factor() == pytest.approx(1)
    assert budget(steps=75).factor() == pytest.approx(0.5)
    assert budget(steps=99).factor() < 0.01


def test_a_resumed_budget_goes_on_where_it_stopped() -> None:
    first = budget(steps=60)
    first.advance()
    resumed = budget(steps=0)
    resumed.resume(first.state())
    assert resumed.steps == 61
    assert resumed.left()
    assert not budget(steps=100).left()
    budget(steps=100).check_spent()


def test_the_numbers_of_a_step_do_not_depend_on_the_run() -> None:
    first, resumed = budget(steps=6), budget(steps=7)
    torch.randn(3, generator=first.generator(0))
    first.advance()
    drawn, again, of_another_step, of_another_seed = (
        torch.randn(3, generator=generator)
        for generator in (
            first.generator(0),
            resumed.generator(0),
            budget(steps=8).generator(0),
            resumed.generator(1),
        )
    )
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, of_another_step)
    assert not torch.equal(drawn, of_another_seed)


def test_a_run_that_stops_in_time_says_how_far_it_is() -> None:
    began = Clock(began=time.monotonic() - 61)
    assert budget(steps=3, deadline=Deadline(minutes=2, clock=began)).left()
    late = budget(steps=3, deadline=Deadline(minutes=1, clock=began))
    assert not late.left()
    with pytest.raises(TimeIsUp, match="3 of 100 steps"):
        late.check_spent()
    with pytest.raises(TimeIsUp, match="not begun"):
        late.deadline.check("not begun")


def test_time_for_a_checkpoint_comes_once_in_so_many_minutes() -> None:
    made = Budget(total=10, flat_share=0, warmup_steps=1, _marked=time.monotonic() - 61)
    assert made.every(minutes=1)
    assert not made.every(minutes=1)


def test_each_group_keeps_its_own_full_rate() -> None:
    groups = [{"params": nn.Linear(1, 1).parameters(), "lr": rate} for rate in (1.0, 0.1)]
    adam = torch.optim.AdamW(groups)
    for factor in (0.5, 0.25):
        set_learning_rate([adam], factor)
    assert [group["lr"] for group in adam.param_groups] == pytest.approx([0.25, 0.025])
