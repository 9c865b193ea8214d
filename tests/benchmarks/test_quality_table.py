"""Numbers of people to rows, intervals and pairs."""

from typing import Any

import numpy as np
import pytest

from benchmarks.quality.carry import carried_rows, measured_again
from benchmarks.quality.judging import METRICS
from benchmarks.quality.report import markdown
from benchmarks.quality.row import MethodRow, Row
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
    names = ("hyperdreambooth", "no_hypernetwork_20", "steps_20", "dreambooth_400", "lora_4", "lora_1")
    pairs = [(one["better"], one["than"]) for one in comparisons([measured(name, {1: 0.5}) for name in names])]
    assert pairs == [
        *[("hyperdreambooth", name) for name in names[1:]],
        ("steps_20", "no_hypernetwork_20"),
        ("steps_20", "dreambooth_400"),
        ("steps_20", "lora_4"),
    ]


def test_a_row_of_the_file_can_be_compared_again() -> None:
    full, slow = measured("hyperdreambooth", {1: 0.5, 2: 0.7}), measured("lora_1", {1: 0.125})
    again = [measured_again(table_row(row)) for row in (full, slow)]
    assert comparisons(again) == comparisons([full, slow])


EARLIER: dict[str, Any] = {
    "seed": 1,
    "base_model_hash": "base",
    "hypernetwork_hash": "hyper",
    "identities": 2,
    "judging": 4,
    "sample": {"steps": 25},
    "prompts": ["a photo of {subject}"],
    "anchors": {"sface/photo": {"same": 0.9, "different": 0.5}},
    "hardware": "a fast computer",
    "rows": [table_row(measured("lora_1", {1: 0.1})), table_row(measured("dreambooth", {1: 0.2}))],
}
SETTINGS = '{"learning_rate": 0.1} and more'


def rows_of(**settings: str) -> list[Row]:
    return [
        MethodRow(name, name, 40, own, lambda bench, person: pytest.fail("it runs")) for name, own in settings.items()
    ]


def test_rows_of_an_earlier_file_that_would_be_run_alike_are_taken_over() -> None:
    (row,) = carried_rows(EARLIER, EARLIER, rows_of(lora_1=SETTINGS, dreambooth="other settings", svdiff=SETTINGS))
    assert row == EARLIER["rows"][0] | {"hardware": "a fast computer"}
    twice = {**EARLIER, "hardware": "a slow computer", "rows": [row]}
    assert carried_rows(twice, EARLIER, rows_of(lora_1=SETTINGS)) == [row], "where it ran is not forgotten"


def test_seconds_of_another_run_are_marked() -> None:
    rows = carried_rows(EARLIER, EARLIER, rows_of(lora_1=SETTINGS)) + EARLIER["rows"][1:]
    text = markdown({**EARLIER, "hardware": "this one", "identities": 1, "rows": rows, "comparisons": []})
    assert "Seconds with * are another run's: a fast computer." in text
    assert "| 1.00\\* |" in text
    assert "| 1.00 |" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 2),
        ("base_model_hash", "another"),
        ("hypernetwork_hash", "another"),
        ("identities", 3),
        ("judging", 5),
        ("sample", {"steps": 50}),
        ("prompts", []),
        ("anchors", {"sface/photo": {"same": 0.9, "different": 0.4}}),
        ("anchors", {}),
    ],
)
def test_rows_of_other_people_models_or_judges_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match="other"):
        carried_rows(EARLIER, {**EARLIER, name: value}, rows_of(lora_1=SETTINGS))


def test_judges_that_another_processor_rounded_are_the_same() -> None:
    rounded = {**EARLIER, "anchors": {"sface/photo": {"same": 0.9001, "different": 0.5}}}
    assert carried_rows(EARLIER, rounded, rows_of(lora_1=SETTINGS))
