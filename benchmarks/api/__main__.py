"""What the API costs beside a bare endpoint: `python -m benchmarks.api --out FILE`.

Ratios of CPU hardly depend on what else the machine does; latencies do: compare them on an idle machine only.
"""

import argparse
import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.api.cpu import cpu_ratios
from benchmarks.api.latency import latencies, percentile, submit_to_start
from benchmarks.api.plan import Plan
from benchmarks.api.service import Measured, measured_service, worker


def main() -> None:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    parser.add_argument("--only", choices=list(PARTS), help="measure this alone")
    asked = parser.parse_args()
    with measured_service() as measured:
        result = measure(measured, Plan(), only=asked.only)
    if asked.only is None:
        print(table(result))
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(measured: Measured, plan: Plan, *, only: str | None = None) -> dict[str, Any]:
    """All figures, each told as soon as it is known."""
    result = {}
    for name, part in PARTS.items():
        if only in {None, name}:
            result[name] = part(measured, plan)
            print(json.dumps({name: result[name]}), flush=True)
    return result


def starts(measured: Measured, plan: Plan) -> dict[str, float]:
    """Milliseconds."""
    with worker(measured):
        delays = submit_to_start(measured, plan)
    return {"p50": percentile(delays, 50), "p99": percentile(delays, 99)}


def spread(measured: Measured, plan: Plan) -> float:
    """How much longer than usual the slowest hundredth of the answers takes."""
    median, p99 = asyncio.run(latencies(measured, plan))
    return round(p99 / median, 2)


PARTS: dict[str, Callable[[Measured, Plan], Any]] = {
    "ratios": cpu_ratios,
    "submit_to_start_ms": starts,
    "p99_over_p50": spread,
}


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    ratios, starts = result["ratios"], result["submit_to_start_ms"]
    rows = [
        ("CPU of a poll that answers 304, over a bare endpoint's", f"{ratios['poll_304']} x", "1.5 x"),
        ("CPU of a poll with body, over a bare endpoint's", f"{ratios['poll_body']} x", "2.5 x"),
        ("CPU of creating a subject (50 kB JPEG), over a bare endpoint's", f"{ratios['create']} x", "-"),
        ("p99 over median at 70 % of saturation", f"{result['p99_over_p50']} x", "5 x"),
        ("submit to worker start, idle, p50 / p99", f"{starts['p50']:.0f} / {starts['p99']:.0f} ms", "- / 50 ms"),
    ]
    lines = ["| measured | here | goal |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
