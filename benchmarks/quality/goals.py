"""What the table's rows say of what the method ought to reach: measured against wanted, and whether it is met."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.quality.table import REFERENCE, interval

JUDGES = ("sface", "dlib")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """One line; `met` is None where the rows can't tell."""

    name: str
    measured: str
    people: int  # whom the rows have in common
    met: bool | None


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Every goal whose rows are there. Likeness has to reach it by each judge, on the people that both rows have."""
    found = {row["name"]: row for row in rows}
    return [goal for goal in _goals(found) if goal is not None] if REFERENCE in found else []


def _goals(found: Mapping[str, Row]) -> Iterator[Goal | None]:
    full, get = found[REFERENCE], found.get
    dreambooth = [row for name, row in found.items() if name.startswith("dreambooth")]
    if dreambooth:
        best = max(dreambooth, key=lambda row: sum(_mean(row, f"identity_{judge}") for judge in JUDGES))
        yield _likeness("at least DreamBooth's best likeness", full, best)
        copies = list(_pairs(full, best, "copy"))
        ours, theirs = (sum(own) / len(copies) for own in zip(*copies, strict=True))
        told = f"{ours:.3f} and {theirs:.3f}"
        yield Goal("copy no higher than that DreamBooth's", told, len(copies), ours <= theirs)
    yield from (_above_in_time(row, found) for row in dreambooth)
    inversion, guess, photo = get("textual_inversion"), get("hypernetwork_only"), "identity_{}/photo"
    yield _seconds("at most 1/25 of the seconds of DreamBooth's 1 200 iterations", full, get("dreambooth"), share=25)
    yield _likeness("more likeness than Textual Inversion", full, inversion, end="low")
    yield _iterations("at most 1/125 of Textual Inversion's iterations", full, inversion, share=125)
    yield _seconds("at most 1/50 of Textual Inversion's seconds", full, inversion, share=50)
    yield _likeness("more than the prediction alone", full, guess, end="low")
    yield _likeness("more than without a prediction", full, get("no_hypernetwork"), end="low")
    for name, passes in (("two passes no worse than one", "one_pass"), ("nor than four", "passes_4")):
        yield _likeness(name, full, get(passes), end="high")
    yield _at_least("the prediction alone, in photos: .5 of the way", guess, photo, 0.5)
    through, unseen = ".8 of what the autoencoder lets through", "other_portrait_{}"
    yield _share(f"{through}, in photos", full, get("round_trip"), photo, 0.8)
    yield _share(f"{through}, likeness to a portrait that no method has seen", full, get("round_trip"), unseen, 0.8)
    yield _at_least("the right person first in .9 of photos", full, "top1_{}_photo", 0.9)
    yield _share(".95 of the style without anybody", full, get("no_subject"), "prompt", 0.95)
    high = full["metrics"]["harm"]["high"]
    yield Goal("harm: at most .02, the interval's upper end", f"{high:.3f}", full["identities"], high <= 0.02)
    merged = get("relaxed_lora_4")
    yield _likeness("at most .02 behind the paper's merged form of rank 4", full, merged, least=-0.02)


def _likeness(name: str, full: Row, other: Row | None, *, end: str = "mean", least: float = 0) -> Goal | None:
    """The difference person by person: this `end` of its interval has to be enough."""
    if other is None:
        return None
    pairs = [list(_pairs(full, other, f"identity_{judge}")) for judge in JUDGES]
    differences = [interval([one - two for one, two in own]) for own in pairs]
    told = "; ".join(_signed(difference) for difference in differences)
    return Goal(name, told, len(pairs[0]), all(difference[end] >= least for difference in differences))


def _above_in_time(dreambooth: Row, found: Mapping[str, Row]) -> Goal | None:
    """Ours that took no longer on the same computer, at its best, against one point of DreamBooth's curve."""
    ours = [
        row
        for name, row in found.items()
        if (name == REFERENCE or name.startswith("steps_"))
        and row.get("hardware") == dreambooth.get("hardware")
        and row["seconds"] <= dreambooth["seconds"]
    ]
    if not ours:
        return None
    best = max(ours, key=lambda row: sum(_mean(row, f"identity_{judge}") for judge in JUDGES))
    name = f"{dreambooth['name']} ({dreambooth['seconds']:.0f} s) not above {best['name']} ({best['seconds']:.0f} s)"
    return _likeness(name, best, dreambooth)


def _iterations(name: str, full: Row, other: Row | None, *, share: float) -> Goal | None:
    if other is None:
        return None
    ours, theirs = full["iterations"], other["iterations"]
    return Goal(name, f"1/{theirs / ours:.0f}", other["identities"], ours * share <= theirs)


def _seconds(name: str, full: Row, other: Row | None, *, share: float) -> Goal | None:
    if other is None:
        return None
    if full.get("hardware") != other.get("hardware"):
        return Goal(name, "seconds of two runs", other["identities"], None)
    ours, theirs = full["seconds"], other["seconds"]
    return Goal(name, f"1/{theirs / ours:.0f}", other["identities"], ours * share <= theirs)


def _at_least(name: str, row: Row | None, metric: str, least: float) -> Goal | None:
    names = [metric.format(judge) for judge in JUDGES]
    if row is None or not row["each"].keys() >= {*names}:
        return None
    means = [interval(row["each"][own])["mean"] for own in names]
    return Goal(name, "; ".join(f"{mean:.3f}" for mean in means), row["identities"], min(means) >= least)


def _share(name: str, full: Row, other: Row | None, metric: str, least: float) -> Goal | None:
    """Means over the same people, one as a share of the other."""
    names = list(dict.fromkeys(metric.format(judge) for judge in JUDGES))
    if other is None or not full["each"].keys() & other["each"].keys() >= {*names}:
        return None
    pairs = [list(_pairs(full, other, own)) for own in names]
    sums = [tuple(map(sum, zip(*own, strict=True))) for own in pairs]
    if any(theirs <= 0 for _, theirs in sums):  # nothing to have a share of
        return Goal(name, "", len(pairs[0]), None)
    shares = [ours / theirs for ours, theirs in sums]
    return Goal(name, "; ".join(f"{share:.2f}" for share in shares), len(pairs[0]), min(shares) >= least)


def _pairs(one: Row, two: Row, metric: str) -> Iterator[tuple[float, float]]:
    """Of the people that both rows have."""
    other = dict(zip(two["each"]["seed"], two["each"][metric], strict=True))
    for who, value in zip(one["each"]["seed"], one["each"][metric], strict=True):
        if who in other:
            yield value, other[who]


def _mean(row: Row, metric: str) -> float:
    return float(row["metrics"][metric]["mean"])


def _signed(difference: Mapping[str, float]) -> str:
    return f"{difference['mean']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"
