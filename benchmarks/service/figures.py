"""From visits and the engine's notes to the figures of a row, and rows to Markdown."""

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.service.timed_worker import Span
from benchmarks.service.visits import Visit

Row = dict[str, Any]


def rate_of(at_once: Sequence[Visit]) -> float:
    """Jobs per second, from the first request to the last result."""
    return len(at_once) / (max(visit.finished for visit in at_once) - min(visit.submitted for visit in at_once))


def worker_figures(at_once: Sequence[Visit], spans: Sequence[Span]) -> Row:
    """From the first claim to the last job's end: how large the batches were, and the share of that time in which the
    engine did not work on them: claims, photos, results, rows, and what is between batches."""
    began, ended = min(visit.started for visit in at_once), max(visit.finished for visit in at_once)
    batches = [span for span in spans if began <= span.began and span.ended <= ended]
    inside = sum(span.ended - span.began for span in batches)
    return {
        "outside_model": 1 - inside / (ended - began),
        "jobs_per_batch": sum(span.jobs for span in batches) / len(batches),
    }


def latency(seen: Sequence[Visit], percent: int) -> float:
    """From submitting to succeeded, in seconds; the nearest rank."""
    ordered = sorted(visit.latency for visit in seen)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| task | batch size | jobs/h | pictures/h | jobs/batch | not model | arrivals/h | p50 s | p95 s | p99 s |",
        "|---|" + "---:|" * 9,
    ]
    for row in rows:
        waits = " | ".join(f"{row['latency_seconds'][name]:.2f}" for name in ("p50", "p95", "p99"))
        pictures = f"{row['pictures_per_hour']:.0f}" if row["pictures_per_hour"] else ""
        lines.append(
            f"| {row['task']} | {row['batch_size']} | {row['jobs_per_hour']:.0f} | {pictures} | "
            f"{row['jobs_per_batch']:.1f} | {row['outside_model']:.1%} | {row['arrivals_per_hour']:.0f} | {waits} |"
        )
    return "\n".join(lines) + "\n"
