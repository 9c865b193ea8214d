"""Numbers of single people to a table: means with confidence intervals over people, and differences in pairs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.quality.judging import METRICS

# Remarks that goals are about: kept person by person, as the metrics are.
FURTHER_METRICS = tuple(
    name.format(judge)
    for name in ("identity_{}/photo", "top1_{}_photo", "other_portrait_{}")
    for judge in ("sface", "dlib")
)
CONFIDENCE = 0.95
REFERENCE = "hyperdreambooth"


@dataclass(frozen=True)
class Person:
    """One person under one row."""

    who: int
    seconds: float
    stored_bytes: int
    scores: dict[str, float]


@dataclass(frozen=True)
class Measured:
    """One row of the table."""

    name: str
    iterations: int
    settings: str
    people: Sequence[Person]


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and its 95 % interval by Student's t: mean ± t sqrt(variance / people). One person alone has none.

    Where four people have to do, a bootstrap's interval is hardly more than half as wide as it should be.
    """
    numbers = np.asarray(values, np.float64)
    mean, wide = float(numbers.mean()), 0.0
    if len(numbers) > 1:
        wide = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(numbers) - 1) * stats.sem(numbers))
    return {"mean": mean, "low": mean - wide, "high": mean + wide}


def table_row(row: Measured) -> dict[str, Any]:
    """As it stands in the file. `metrics` holds what is compared, `remarks` what explains it, `each` who had what."""
    names = row.people[0].scores
    intervals = {name: interval([person.scores[name] for person in row.people]) for name in names}
    return {
        "name": row.name,
        "iterations": row.iterations,
        "seconds": float(np.median([person.seconds for person in row.people])),
        "learning_rate": learning_rate(row.settings) if row.iterations else None,
        "bytes": int(np.median([person.stored_bytes for person in row.people])),
        "identities": len(row.people),
        "settings": row.settings,
        "metrics": {name: intervals[name] for name in METRICS},
        "remarks": {name: value for name, value in intervals.items() if name not in METRICS},
        "each": {
            "seed": [person.who for person in row.people],
            **{
                name: [round(person.scores[name], 4) for person in row.people]
                for name in (*METRICS, *FURTHER_METRICS)
                if name in names
            },
        },
    }


def learning_rate(settings: str) -> float:
    """Of a row that trains: its settings begin with those of the training, as JSON."""
    training, _ = json.JSONDecoder().raw_decode(settings)
    return float(training["learning_rate"])


def comparisons(rows: Sequence[Measured]) -> list[dict[str, Any]]:
    """The full method less each other row, then our other numbers of steps less what they are to be compared with.

    Hypernetworks' predictions are compared with each other. Person by person, on the people that both have.
    """
    compared = []
    for better, than in product(rows, rows):
        own = {person.who: person.scores for person in better.people}
        pairs = [(own[person.who], person.scores) for person in than.people if person.who in own]
        if not _is_compared(better.name, than.name) or not pairs:
            continue
        differences = {name: interval([one[name] - other[name] for one, other in pairs]) for name in METRICS}
        compared.append({"better": better.name, "than": than.name, "identities": len(pairs), "by": differences})
    return compared


def _is_compared(better: str, than: str) -> bool:
    steps = better.startswith("steps_") and than.startswith(("dreambooth", "lora_4"))
    predictions = better.endswith("_only") and than.endswith("_only") and better < than
    return (better == REFERENCE != than) or steps or predictions or (better, than) == ("steps_20", "no_hypernetwork_20")
