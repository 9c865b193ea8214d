"""Measurements to rows, and rows to Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.many_subjects.bench import Measured, Switched
from benchmarks.many_subjects.settings import Case, Method, Mix, Task
from benchmarks.many_subjects.shares import Share

Row = dict[str, Any]
HEAD = (
    "task", "mix", "subjects", "method", "s/subject", "of peft_loop", "CPU s/subject", "of peft_loop", "pictures/s",
    "of floor", "turns", "MB", "Δw", "Δpixel", "Δw f64", "Δpixel f64",
)  # fmt: skip


def row_of(
    case: Case, method: Method, turns: Sequence[Measured], *, floor_seconds: float | None, double: float | None
) -> Row:
    """Medians of the turns; None where the batch did not fit into memory."""
    seconds = statistics.median(turn.seconds for turn in turns) if turns else None
    differences = [turn.difference for turn in turns if turn.difference is not None]
    difference = max(differences, default=None)
    is_training = case.task is Task.PERSONALIZE
    return {
        "task": case.task.value,
        "method": method.value,
        "subjects": case.subjects,
        "mix": case.mix.value,
        "seconds_per_subject": seconds,
        "cpu_seconds_per_subject": statistics.median(turn.cpu_seconds for turn in turns) if turns else None,
        "images_per_second": 1 / seconds if seconds and not is_training else None,
        "peak_bytes": max((turn.peak_bytes for turn in turns), default=None),
        "max_weight_difference": difference if is_training else None,
        "max_pixel_difference": None if is_training else difference,
        "max_weight_difference_float64": double if is_training else None,
        "max_pixel_difference_float64": None if is_training else double,
        "floor_seconds": floor_seconds,
        "turns": len(turns),
    }


def markdown(rows: Sequence[Row], switches: Mapping[str, Switched], shares: Sequence[Share]) -> str:
    """The rows with their ratios; then the switches; then where the time goes."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---|---" + "|---:" * (len(HEAD) - 2) + "|"]
    lines += ["| " + " | ".join(_cells(row, loop_of(row, rows))) + " |" for row in rows]
    if switches:
        lines += ["", "| switch to another subject | adapters at hand | median ms | p99 ms |", "|---|---:|---:|---:|"]
        lines += [
            f"| {name} | {switch.resident} | {switch.p50_ms:.2f} | {switch.p99_ms:.2f} |"
            for name, switch in switches.items()
        ]
    for task in Task:
        own = sorted((share for share in shares if share.task is task), key=lambda share: -share.share)
        if own:
            lines += ["", f"| where the time goes: {task} | share |", "|---|---:|"]
            lines += [f"| {share.kind} | {share.share:.1%} |" for share in own if share.share]
    return "\n".join(lines) + "\n"


def loop_of(row: Row, rows: Sequence[Row]) -> Row:
    """What users of diffusers and peft wait for the same thing; empty if that was not measured."""
    same = (
        other
        for other in rows
        if other["method"] == Method.PEFT_LOOP and all(other[key] == row[key] for key in ("task", "mix", "subjects"))
    )
    return next(same, {})


def _cells(row: Row, loop: Row) -> list[str]:
    mix = row["mix"] if row["task"] == Task.GENERATE else ""
    return [
        row["task"],
        mix,
        str(row["subjects"]),
        row["method"],
        _number(row["seconds_per_subject"]),
        _ratio(row["seconds_per_subject"], loop.get("seconds_per_subject")),
        _number(row["cpu_seconds_per_subject"]),
        _ratio(row["cpu_seconds_per_subject"], loop.get("cpu_seconds_per_subject")),
        _number(row["images_per_second"]),
        _ratio(row["seconds_per_subject"], row["floor_seconds"]),
        str(row["turns"]),
        _number(row["peak_bytes"] and row["peak_bytes"] / 1e6, ".0f"),
        _number(row["max_weight_difference"], ".1e"),
        _number(row["max_pixel_difference"], ".0f"),
        _number(row["max_weight_difference_float64"], ".1e"),
        _number(row["max_pixel_difference_float64"], ".0f"),
    ]


def _number(value: float | None, form: str = ".3g") -> str:
    return "" if value is None else format(value, form)


def _ratio(value: float | None, other: float | None) -> str:
    return f"{value / other:.2f} x" if value and other else ""


def is_distinct(row: Row) -> bool:
    return bool(row["mix"] == Mix.DISTINCT)
