"""What is asked of the method, from rows whose answer is known."""

from typing import Any

import pytest

from benchmarks.quality.goals import Goal, goals
from benchmarks.quality.judging import METRICS
from benchmarks.quality.table import FURTHER_METRICS, Measured, Person, table_row


def row(
    name: str, scores: list[float], *, seconds: float = 1, hardware: str | None = None, **others: float
) -> dict[str, Any]:
    """One score for everything, but for those given by name."""
    others = {own.replace("__", "/"): value for own, value in others.items()}
    people = [
        Person(who, seconds, 10, dict.fromkeys((*METRICS, *FURTHER_METRICS), score) | others)
        for who, score in enumerate(scores)
    ]
    told = table_row(Measured(name, 40, '{"learning_rate": 0.1}', people))
    return told if hardware is None else told | {"hardware": hardware}


FULL = row("hyperdreambooth", [0.7, 0.9], copy=0.9, harm=0.01)


def goal(name: str, *rows: dict[str, Any], full: dict[str, Any] = FULL) -> Goal:
    (found,) = [goal for goal in goals([full, *rows]) if name in goal.name]
    return found


def test_without_the_full_method_nothing_is_asked() -> None:
    assert goals([row("dreambooth", [0.5])]) == []


def test_a_goal_needs_its_rows() -> None:
    assert {goal.name for goal in goals([FULL])} == {
        "the right person first in .9 of photos",
        "harm: at most .02, the interval's upper end",
    }


@pytest.mark.parametrize(("theirs", "met"), [([0.6, 0.9], True), ([0.8, 0.9], False)])
def test_dreambooths_best_is_the_measure(theirs: list[float], met: bool) -> None:
    worse = row("dreambooth_40", [0.1, 0.1], copy=0.1)
    found = goal("best likeness", worse, row("dreambooth", theirs))
    assert found.met is met
    assert found.people == 2
    assert found.measured.startswith("+0.050" if met else "-0.050")
    assert goal("copy", worse, row("dreambooth", theirs, copy=0.95)).met is True
    assert goal("copy", worse, row("dreambooth", theirs, copy=0.85)).met is False


def test_a_point_of_dreambooths_curve_is_compared_with_ours_of_the_same_time_and_computer() -> None:
    longer = row("steps_400", [1.0, 1.0], seconds=50)
    elsewhere = row("steps_200", [2.0, 2.0], seconds=2, hardware="another")
    theirs = row("dreambooth_400", [0.95, 0.95], seconds=60)
    found = goal("dreambooth_400", longer, elsewhere, theirs)
    assert "not above steps_400 (50 s)" in found.name
    assert found.met is True
    assert goal("dreambooth_400", longer, elsewhere, theirs | {"seconds": 40.0}).met is False, "ours takes longer"


def test_seconds_of_two_computers_say_nothing() -> None:
    assert goal("1/25", row("dreambooth", [0.5], seconds=30)).met is True
    assert goal("1/25", row("dreambooth", [0.5], seconds=20)).met is False
    assert goal("1/25", row("dreambooth", [0.5], seconds=30, hardware="another")).met is None


def test_an_ordering_holds_where_its_whole_interval_does() -> None:
    assert goal("without a prediction", row("no_hypernetwork", [0.6, 0.8])).met is True
    assert goal("without a prediction", row("no_hypernetwork", [0.5, 0.9])).met is False, "on average, not surely"
    assert goal("worse than one", row("one_pass", [0.6, 1.1])).met is True, "it may be equal"
    assert goal("worse than one", row("one_pass", [0.8, 1.0])).met is False
    assert goal("nor than four", row("passes_4", [0.8, 1.0])).met is False
    assert goal("more likeness than Textual", row("textual_inversion", [0.6, 0.8])).met is True
    assert goal("more likeness than Textual", row("textual_inversion", [0.5, 0.9])).met is False


@pytest.mark.parametrize(("iterations", "met"), [(5000, True), (4999, False)])
def test_iterations_are_compared_too(iterations: int, met: bool) -> None:
    found = goal("iterations", row("textual_inversion", [0.5]) | {"iterations": iterations})
    assert (found.measured, found.people, found.met) == ("1/125", 1, met)


def test_both_judges_have_to_agree() -> None:
    guess = row("hypernetwork_only", [0.1, 0.1], identity_sface__photo=0.6, identity_dlib__photo=0.4)
    assert goal(".5 of the way", guess).met is False
    assert goal(".5 of the way", guess).measured == "0.600; 0.400"
    assert goal(".5 of the way", row("hypernetwork_only", [0.5, 0.6])).met is True


def test_a_share_is_of_the_same_people() -> None:
    assert goal("lets through, in photos", row("round_trip", [0.875])).measured == "0.80; 0.80", (
        ".7 of .875, of the one that both have"
    )
    assert goal("lets through, in photos", row("round_trip", [0.85])).met is True
    assert goal("lets through, in photos", row("round_trip", [0.9])).met is False


def test_a_portrait_that_nobody_has_seen_is_a_measure_too() -> None:
    full = row("hyperdreambooth", [0.9], other_portrait_sface=0.6, other_portrait_dlib=0.7)
    found = goal(
        "no method has seen", row("round_trip", [1.0], other_portrait_sface=0.75, other_portrait_dlib=1.0), full=full
    )
    assert (found.measured, found.met) == ("0.80; 0.70", False)


def test_nothing_has_no_shares() -> None:
    assert goal("lets through, in photos", row("round_trip", [0.0])).met is None
    assert goal("lets through, in photos", row("round_trip", [-0.1])).met is None


def test_what_an_older_file_lacks_is_not_asked() -> None:
    older = row("round_trip", [0.8])
    for name in FURTHER_METRICS:
        del older["each"][name]
    assert not [goal for goal in goals([FULL, older]) if "autoencoder" in goal.name]
