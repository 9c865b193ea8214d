"""Numbers of people to rows, intervals and pairs."""

import numpy as np
import pytest

from benchmarks.quality.judging import METRICS
from benchmarks.quality.table import Measured, Person, comparisons, interval, table_row


def measured(name: str, identities: dict[int, float]) -> Measured:
    people = [
        Person(who, seconds=float(who), stored_bytes=10 * who, scores=dict.fromkeys(METRICS, score) | {"faces": 1.0})
        for who, score in identities.items()
    ]
    return Measured(name, 40, '{"learning_rate": 0.1} and more', people)


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for people in (4, 40):
        estimates = [interval(rng.normal(0.3, 1, people).tolist()) for _ in range(400)]
        covered = [estimate["low"] <= 0.3 <= estimate["high"] for estimate in estimates]
        assert 0.92 <= np.mean(covered) <= 0.98, people


def test_few_people_leave_more_doubt_than_their_spread() -> None:
    # Student's t of two degrees of freedom: 4.303 standard errors.
    assert interval([0.1, 0.2, 0.6])["high"] == pytest.approx(0.3 + 4.303 * np.sqrt(0.07 / 3), abs=1e-3)
    assert interval([0.4]) == {"mean": 0.4, "low": 0.4, "high": 0.4}


def test_people_who_agree_leave_no_doubt() -> None:
    assert interval([0.5, 0.5, 0.5]) == {"mean": 0.5, "low": 0.5, "high": 0.5}


def test_a_row_reports_the_median_of_seconds_and_bytes() -> None:
    row = table_row(measured("lora_1", {1: 0.1, 2: 0.2, 9: 0.9}))
    assert (row["seconds"], row["bytes"], row["identities"]) == (2.0, 20, 3)
    assert row["metrics"]["identity_sface"]["mean"] == pytest.approx(0.4)
    assert row["remarks"]["faces"]["mean"] == 1
    assert row["learning_rate"] == 0.1


def test_rows_are_compared_on_the_people_they_share() -> None:
    # Person 3 would turn the difference around, but the slow row never saw them.
    full = measured("hyperdreambooth", {1: 0.5, 2: 0.7, 3: -9.0})
    (compared,) = comparisons([full, measured("dreambooth", {1: 0.4, 2: 0.6})])
    assert (compared["than"], compared["identities"]) == ("dreambooth", 2)
    assert compared["by"]["identity_sface"]["mean"] == pytest.approx(0.1)
    assert compared["by"]["identity_sface"]["low"] == pytest.approx(0.1)


def test_without_the_full_method_nothing_is_compared() -> None:
    assert comparisons([measured("lora_1", {1: 0.1})]) == []


def test_our_curve_is_compared_with_dreambooths() -> None:
    rows = [measured(name, {1: 0.5}) for name in ("hyperdreambooth", "photo_alone", "dreambooth_400", "lora_1")]
    pairs = [(one["better"], one["than"]) for one in comparisons(rows)]
    assert pairs == [
        ("hyperdreambooth", "photo_alone"),
        ("hyperdreambooth", "dreambooth_400"),
        ("hyperdreambooth", "lora_1"),
        ("photo_alone", "dreambooth_400"),
    ]
