"""What the whole service gets through: `python -m benchmarks.service --out FILE`.

HTTP, queue, database and bucket included, on servers of its own. Each batch size serves the same jobs twice: all asked
for at once (jobs per hour; what share of the worker's time is not the model's), then with Poisson arrivals at the same
pace for every batch size (latencies).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from benchmarks.hardware import describe
from benchmarks.service.figures import Row, latency, rate_of, table, worker_figures
from benchmarks.service.running import Running, running_service
from benchmarks.service.settings import Settings
from benchmarks.service.visits import create_subject, order_pictures, poisson, visits
from core.lifecycle import JobKind

Paces = dict[JobKind, float]  # arrivals per second


def main(settings: Settings, out: Path) -> None:
    """Measure, print the table, write the file."""
    rows: list[Row] = []
    paces: Paces = {}
    with tempfile.TemporaryDirectory(prefix="hdb-benchmark-") as work:
        photo = settings.photo.read_bytes() if settings.photo else rendered_photo(Path(work))
        for batch_size in settings.batch_sizes:
            with running_service(settings, Path(work) / str(batch_size), batch_size=batch_size) as running:
                rows += rows_of(running, settings, photo, paces, batch_size=batch_size)
                say(f"batch size {batch_size} done")
    document = {
        "hardware": describe(settings.device),
        "model": settings.base_model,
        "load": settings.load,
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=2) + "\n")
    text = table(rows)
    out.with_suffix(".md").write_text(text)
    print(text)


def rows_of(running: Running, settings: Settings, photo: bytes, paces: Paces, *, batch_size: int) -> list[Row]:
    """Both kinds of jobs, each after a first one that warms everything up."""
    rows = []
    with running.client() as client:
        ask = create_subject(client, photo)
        subjects = [visit.subject_id for visit in visits(client, ask, [0.0])]
        for kind in (JobKind.PERSONALIZE, JobKind.GENERATE):
            if kind is JobKind.GENERATE:
                ask = order_pictures(client, subjects, prompt=settings.prompt, pictures=settings.pictures)
                visits(client, ask, [0.0])
            at_once = visits(client, ask, [0.0] * settings.jobs)
            rate = rate_of(at_once)
            pace = paces.setdefault(kind, settings.load * rate)
            one_by_one = visits(client, ask, poisson(settings.jobs, per_second=pace))
            subjects += [visit.subject_id for visit in at_once if kind is JobKind.PERSONALIZE]
            rows.append(
                {
                    "task": kind.value,
                    "batch_size": batch_size,
                    "jobs_per_hour": rate * 3600,
                    "pictures_per_hour": rate * 3600 * settings.pictures if kind is JobKind.GENERATE else None,
                    "arrivals_per_hour": pace * 3600,
                    "latency_seconds": {f"p{percent}": latency(one_by_one, percent) for percent in (50, 95, 99)},
                    **worker_figures(at_once, [span for span in running.spans() if span.kind is kind]),
                }
            )
            say(json.dumps(rows[-1]))
    return rows


def rendered_photo(work: Path) -> bytes:
    from cli.portrait import DEMO_PERSON, held_out_portrait

    return held_out_portrait(DEMO_PERSON, cache=work / "portraits")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None = None) -> tuple[Settings, Path]:
    """Options are named after the fields of `Settings`."""
    default = Settings()
    kinds = {"load": float, "base_model": str, "prompt": str, "device": str, "photo": Path}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="FILE.json; FILE.md is written beside it")
    sizes = ",".join(map(str, default.batch_sizes))
    parser.add_argument("--batch-sizes", default=sizes, help=f"separated by commas (default: {sizes})")
    for field in fields(Settings):
        if field.name != "batch_sizes":
            option = f"--{field.name.replace('_', '-')}"
            parser.add_argument(option, type=kinds.get(field.name, int), default=getattr(default, field.name))
    given = vars(parser.parse_args(arguments))
    out: Path = given.pop("out")
    return Settings(**given | {"batch_sizes": tuple(map(int, given["batch_sizes"].split(",")))}), out


if __name__ == "__main__":
    main(*parse())
