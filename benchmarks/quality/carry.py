"""Rows of an earlier FILE that still hold: who changed one method need not run the others, which take hours."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.quality.judging import METRICS
from benchmarks.quality.row import Row
from benchmarks.quality.table import Measured, Person

SAME_JUDGES = 0.01  # of each anchor: processors round otherwise, other judges are further off
ABOUT = ("identities", "seed", "base_model_hash", "hypernetwork_hash", "judging", "sample", "prompts")


def carried_rows(earlier: Mapping[str, Any], about: Mapping[str, Any], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of `earlier`, the rows that would be run with the same settings today; `about` is what FILE says beside rows.

    They keep their seconds, which are another run's: each says on which hardware. Raises `ValueError` where people,
    base model or judges are others.
    """
    for name in ABOUT:
        if earlier.get(name) != about[name]:
            raise ValueError(f"another {name}: {earlier.get(name)}, here {about[name]}")
    if not _same_anchors(earlier["anchors"], about["anchors"]):
        raise ValueError("other judges: the anchors differ")
    settings = {row.name: row.settings for row in rows}
    return [
        {"hardware": earlier["hardware"], **row}
        for row in earlier["rows"]
        if settings.get(row["name"]) == row["settings"]
    ]


def measured_again(row: Mapping[str, Any]) -> Measured:
    """A row of the file as it was when it was measured, for comparisons: person by person."""
    each = row["each"]
    people = [
        Person(who, row["seconds"], row["bytes"], {name: each[name][place] for name in METRICS})
        for place, who in enumerate(each["seed"])
    ]
    return Measured(row["name"], row["iterations"], row["settings"], people)


def _same_anchors(earlier: Mapping[str, Mapping[str, float]], now: Mapping[str, Mapping[str, float]]) -> bool:
    return earlier.keys() == now.keys() and all(
        abs(value - now[name][end]) <= SAME_JUDGES for name, ends in earlier.items() for end, value in ends.items()
    )
