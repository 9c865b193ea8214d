"""The table as JSON, as Markdown, and as a sheet of pictures for eyes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from benchmarks.hardware import describe
from benchmarks.quality.goals import goals
from benchmarks.quality.judging import METRICS
from hyperdreambooth.portraits.styles import Style

SHEET_PEOPLE = 4
SHEET_STYLES = (Style.PHOTO, Style.PENCIL_SKETCH, Style.POP_ART)
CELL, LABEL = 96, 150  # pixels of the sheet


def hardware(device: torch.device) -> str:
    return f"{describe(device.type)}, {torch.get_num_threads()} threads, float32"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def markdown(document: Mapping[str, Any]) -> str:
    """Two tables: the rows, and rows against each other."""
    people, seed = document["identities"], document["seed"]
    lines = [
        f"{people} people of seed {seed}, {document['hardware']}. Mean and 95 % interval over people;",
        "identity: 0 a stranger, 1 the same person in another picture; prompt: share in the style asked for.",
        *_elsewhere(document["rows"]),
        "",
        "| row | people | iterations | learning rate | seconds | bytes | " + " | ".join(METRICS) + " |",
        "|---|" + "---:|" * (5 + len(METRICS)),
    ]
    for row in document["rows"]:
        cells = [_cell(row["metrics"][name]) for name in METRICS]
        lines.append(
            f"| {row['name']} | {row['identities']} | {row['iterations']} | {_rate(row)} | {_seconds(row)} | "
            f"{row['bytes']} | " + " | ".join(cells) + " |"
        )
    if document["comparisons"]:
        names = list(document["comparisons"][0]["by"])
        lines += [
            "",
            "One row less another, person by person:",
            "",
            "| row | less | people | " + " | ".join(names) + " |",
        ]
        lines.append("|---|---|" + "---:|" * (1 + len(names)))
    for compared in document["comparisons"]:
        cells = [_cell(compared["by"][name]) for name in compared["by"]]
        lines.append(
            f"| {compared['better']} | {compared['than']} | {compared['identities']} | " + " | ".join(cells) + " |"
        )
    reached = goals(document["rows"])
    if reached:
        lines += [
            "",
            "Likeness by SFace; by dlib. What is asked of the method:",
            "",
            "| goal | measured | people | |",
            "|---|---|---:|---|",
        ]
    for goal in reached:
        told = {True: "met", False: "missed", None: "can't be told"}[goal.met]
        lines.append(f"| {goal.name} | {goal.measured} | {goal.people} | {told} |")
    return "\n".join(lines) + "\n"


def contact_sheet(
    portraits: Sequence[Image.Image],
    rows: Mapping[str, Sequence[Sequence[Image.Image]] | Image.Image],
    styles: Sequence[Style],
) -> Image.Image:
    """First line: the photos. Then each method, every person in three styles; `styles` names the pictures.

    A row may also be a line of an earlier sheet, as `sheet_line` cuts it.
    """
    places = [list(styles).index(style) for style in SHEET_STYLES]
    people = min(SHEET_PEOPLE, len(portraits))
    sheet = Image.new("RGB", (LABEL + people * len(places) * CELL, (1 + len(rows)) * CELL), "white")
    pen = ImageDraw.Draw(sheet)
    for line, name in enumerate(("photo", *rows)):
        pen.text((6, line * CELL + CELL // 2 - 6), name, fill="black")
    for column, portrait in enumerate(portraits[:people]):
        _paste(sheet, portrait, line=0, place=column * len(places))
        for line, pictures in enumerate(rows.values(), start=1):
            if isinstance(pictures, Image.Image):
                sheet.paste(pictures, (LABEL, line * CELL))
                continue
            if column >= len(pictures):  # a slow row has fewer people
                continue
            for offset, place in enumerate(places):
                _paste(sheet, pictures[column][place], line=line, place=column * len(places) + offset)
    return sheet


def sheet_line(sheet: Image.Image, place: int) -> Image.Image:
    """The pictures of the sheet's row number `place`, without the row's name."""
    top = (1 + place) * CELL
    return sheet.crop((LABEL, top, sheet.width, top + CELL))


def _paste(sheet: Image.Image, picture: Image.Image, *, line: int, place: int) -> None:
    enlarged = picture.resize((CELL, CELL), Image.Resampling.BICUBIC)
    sheet.paste(enlarged, (LABEL + place * CELL, line * CELL))


def _elsewhere(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the rows ran that were taken over from an earlier run."""
    runs = sorted({row["hardware"] for row in rows if "hardware" in row})
    return [f"Seconds with * are another run's: {hardware}." for hardware in runs]


def _seconds(row: Mapping[str, Any]) -> str:
    return f"{row['seconds']:.2f}" + ("\\*" if "hardware" in row else "")


def _rate(row: Mapping[str, Any]) -> str:
    return "" if row["learning_rate"] is None else f"{row['learning_rate']:.3g}"


def _cell(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
