"""The paper's tables, on people nobody has trained on: `python -m benchmarks.quality --identities N --out FILE`.

Read next: `rows.py` (what is compared), `questions.py` (what is asked), `judging.py` (how it is judged). A run that was
broken off goes on where it was: outcomes and judgements are kept in `runs/quality`.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image

from benchmarks.quality.bench import Bench
from benchmarks.quality.cache import JUDGING, Cache
from benchmarks.quality.calibration import Judges, calibrated_judges
from benchmarks.quality.carry import carried_rows, measured_again
from benchmarks.quality.judging import Gallery, judge, make_gallery
from benchmarks.quality.report import contact_sheet, hardware, markdown, sheet_line, write_json
from benchmarks.quality.row import Outcome, Row
from benchmarks.quality.rows import all_rows
from benchmarks.quality.settings import Settings
from benchmarks.quality.table import Measured, Person, comparisons, table_row
from hyperdreambooth.recipes.progress import Progress

Sheet: TypeAlias = dict[str, Sequence[Sequence[Image.Image]] | Image.Image]


def main(settings: Settings, names: Sequence[str], out: Path) -> None:
    """Row by row; the report is written anew after each, so that a broken run leaves what it has."""
    bench = Bench(settings)
    judges = calibrated_judges(bench.head, settings, size=bench.size)
    gallery = make_gallery(judges, bench.people, bench.others)
    chosen, about = chosen_rows(bench, names), about_run(bench, judges)
    rows, sheet = earlier_rows(bench, about)
    every = list(all_rows(bench))
    for row in chosen:
        outcomes, row_measured = measure(bench, judges, gallery, row)
        rows[row.name] = table_row(row_measured)
        sheet[row.name] = [outcome.pictures for outcome in outcomes]
        order = [name for name in every if name in rows]
        report(bench, about, [rows[name] for name in order], {name: sheet[name] for name in order}, out)


def measure(bench: Bench, judges: Judges, gallery: Gallery, row: Row) -> tuple[list[Outcome], Measured]:
    """One row, person by person."""
    cache, settings = Cache(bench, row), bench.settings
    outcomes: list[Outcome] = []
    people: list[Person] = []
    count = min(len(bench.people), settings.slow_identities) if row.slow else len(bench.people)
    progress = Progress(row.name, total=count, unit="people")
    for own, person in enumerate(bench.people[:count]):
        spent = sum(outcome.seconds for outcome in outcomes)
        if row.slow and len(people) > 1 and spent > 60 * settings.row_minutes:
            break
        outcome = cache.outcome(person.seed)
        if outcome is None:
            outcome = row.run(bench, own)
            cache.keep_outcome(person.seed, outcome)
        scores = cache.scores(person.seed, gallery)
        if scores is None:
            scores = judge(judges, gallery, own, bench.asked, outcome.pictures, outcome.others)
            cache.keep_scores(person.seed, gallery, scores)
        outcomes.append(outcome)
        people.append(Person(person.seed, outcome.seconds, outcome.stored_bytes, scores))
        progress.advance(seconds=outcome.seconds, identity=scores["identity_sface"])
    return outcomes, Measured(row.name, row.iterations, row.settings, people)


def chosen_rows(bench: Bench, names: Sequence[str]) -> list[Row]:
    """The rows asked for, all of them without any names; what needs a hypernetwork only where there is one."""
    rows = all_rows(bench)
    unknown = set(names) - set(rows)
    if unknown:
        raise SystemExit(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(rows)}")
    chosen = [rows[name] for name in names or rows]
    usable = [row for row in chosen if bench.networks.hypernetwork is not None or not row.needs_hypernetwork]
    if names and len(usable) < len(chosen):
        raise SystemExit(f"{bench.base_model.name} has no hypernetwork")
    return usable


def about_run(bench: Bench, judges: Judges) -> dict[str, Any]:
    """What FILE says beside its rows."""
    return {
        "identities": len(bench.people),
        "seed": bench.settings.seed,
        "hardware": hardware(bench.device),
        "base_model": bench.base_model.name,
        "base_model_hash": bench.base_model.weights_hash,
        "hypernetwork_hash": bench.networks.hypernetwork_hash,
        "judging": JUDGING,
        "sample": asdict(bench.networks.config.sample),
        "prompts": [question.prompt for question in bench.asked],
        "anchors": {f"{judge}/{style}": asdict(anchors) for (judge, style), anchors in judges.anchors.items()},
    }


def earlier_rows(bench: Bench, about: Mapping[str, Any]) -> tuple[dict[str, Any], Sheet]:
    """Those of `--carry` that still hold, and their lines of its sheet."""
    path = bench.settings.carry
    if path is None:
        return {}, {}
    try:
        earlier = json.loads(path.read_text())
        rows = {row["name"]: row for row in carried_rows(earlier, about, list(all_rows(bench).values()))}
        sheet = Image.open(path.with_suffix(".png"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path}: {error}") from error
    places = {row["name"]: place for place, row in enumerate(earlier["rows"])}
    return rows, {name: sheet_line(sheet, places[name]) for name in rows}


def report(
    bench: Bench,
    about: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    sheet: Sheet,
    out: Path,
) -> None:
    """FILE, and beside it the same as `.md` and `.png`."""
    document = {**about, "rows": rows, "comparisons": comparisons([measured_again(row) for row in rows])}
    write_json(out, document)
    out.with_suffix(".md").write_text(markdown(document))
    styles = [question.style for question in bench.asked]
    contact_sheet([person.portrait for person in bench.people], sheet, styles).save(out.with_suffix(".png"))


def parse(arguments: Sequence[str] | None = None) -> tuple[Settings, list[str], Path, int]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description="The paper's tables, re-run.")
    parser.add_argument("--identities", type=int, required=True, help="people in the table")
    parser.add_argument("--seed", type=int, default=0, help="which people")
    parser.add_argument("--out", type=Path, required=True, help="FILE.json; FILE.md and FILE.png are written beside it")
    parser.add_argument("--rows", default="", help="names, separated by commas; all without it")
    parser.add_argument("--base-model", help="a folder or hub id instead of mini")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--slow-identities", type=int, help="of these, people for slow methods and variants of ours")
    parser.add_argument("--row-minutes", type=float, help="a slow row that trained for so long gets no more")
    parser.add_argument(
        "--hypernetwork",
        dest="hypernetworks",
        action="append",
        type=_named_folder,
        metavar="NAME=FOLDER",
        help="rows NAME and NAME_only with another hypernetwork for the same base model, as `hdb train` leaves it",
    )
    parser.add_argument("--work", type=Path, help="where caches are kept")
    parser.add_argument("--calibration-people", type=int, help="people on whom the judges are made ready")
    parser.add_argument("--clip", help="a folder or hub id: adds CLIP-I and CLIP-T to the remarks")
    parser.add_argument("--dino", help="the same for DINO")
    parser.add_argument("--facenet", type=Path, help="an ONNX file: adds a third judge of identity to the remarks")
    parser.add_argument("--carry", type=Path, help="an earlier FILE: rows that still hold and aren't measured now")
    parser.add_argument("--finetune-steps", type=int, help="at most so many iterations: a check, no measurement")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = vars(parser.parse_args(arguments))
    rows, out, threads = given.pop("rows"), given.pop("out"), given.pop("threads")
    given["hypernetworks"] = tuple(given["hypernetworks"] or ())
    required = Settings(identities=given.pop("identities"), seed=given.pop("seed"))
    settings = replace(required, **{name: value for name, value in given.items() if value is not None})
    return settings, [name for name in rows.split(",") if name], out, threads


def _named_folder(said: str) -> tuple[str, Path]:
    name, _, folder = said.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"{said!r} isn't NAME=FOLDER")
    return name, Path(folder)


if __name__ == "__main__":
    settings, names, out, threads = parse()
    torch.set_num_threads(threads)
    main(settings, names, out)
