"""Seconds per subject over the size of the batch, a line for each method: both axes in powers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from benchmarks.many_subjects.settings import Method, Task
from benchmarks.many_subjects.table import Row, is_distinct

WIDTH, HEIGHT, MARGIN, LEGEND = 520, 400, 64, 120
INK, GRID, FLOOR = "#222222", "#dddddd", "#999999"
COLOURS = {
    Method.PEFT_LOOP: "#d62728",
    Method.PEFT_MIXED: "#ff7f0e",
    Method.HOTSWAP: "#9467bd",
    Method.MERGED: "#8c564b",
    Method.OURS: "#1f77b4",
    Method.BASE: "#7f7f7f",
}
FONT_SIZE = 13
FONT = ImageFont.load_default(FONT_SIZE)


@dataclass(frozen=True)
class Axes:
    """From numbers to places on a panel, logarithmic both ways."""

    left: int
    counts: tuple[int, int]
    seconds: tuple[float, float]

    def place(self, count: float, seconds: float) -> tuple[float, float]:
        across = _share(count, *self.counts)
        up = _share(seconds, *self.seconds)
        return (
            self.left + MARGIN + across * (WIDTH - MARGIN - LEGEND),
            HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN),
        )


def scaling_picture(rows: Sequence[Row]) -> Image.Image:
    """A panel for each task that was measured."""
    tasks = [task for task in Task if any(row["task"] == task for row in rows)]
    picture = Image.new("RGB", (WIDTH * len(tasks), HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    for index, task in enumerate(tasks):
        shown = [
            row for row in rows if row["task"] == task and is_distinct(row) and row["seconds_per_subject"] is not None
        ]
        if shown:
            _panel(pen, task, shown, left=index * WIDTH)
    return picture


def _panel(pen: ImageDraw.ImageDraw, task: Task, rows: Sequence[Row], *, left: int) -> None:
    counts = sorted({row["subjects"] for row in rows})
    values = [row["seconds_per_subject"] for row in rows] + [
        row["floor_seconds"] for row in rows if row["floor_seconds"]
    ]
    axes = Axes(left, (counts[0], counts[-1]), (min(values), max(values)))
    pen.text((left + MARGIN, 16), f"{task}: seconds per subject", fill=INK, font=FONT)
    pen.text((left + MARGIN, HEIGHT - 26), "subjects in a batch", fill=INK, font=FONT)
    _grid(pen, axes, counts)
    named: list[float] = []  # heights of the names at the lines' ends
    floor = rows[0]["floor_seconds"]
    if floor:
        _line(pen, axes, [(counts[0], floor), (counts[-1], floor)], FLOOR)
        _name(pen, axes, "floor", (counts[-1], floor), FLOOR, named)
    for method, colour in COLOURS.items():
        points = [(row["subjects"], row["seconds_per_subject"]) for row in rows if row["method"] == method]
        if points:
            _line(pen, axes, points, colour)
            _name(pen, axes, method, points[-1], colour, named)


def _grid(pen: ImageDraw.ImageDraw, axes: Axes, counts: Sequence[int]) -> None:
    low, high = axes.seconds
    for count in counts:
        foot = axes.place(count, low)
        pen.line([foot, axes.place(count, high)], fill=GRID)
        pen.text((foot[0], foot[1] + 6), str(count), fill=INK, font=FONT, anchor="ma")
    for tick in _ticks(low, high):
        start = axes.place(counts[0], tick)
        pen.line([start, axes.place(counts[-1], tick)], fill=GRID)
        pen.text((start[0] - 6, start[1]), f"{tick:g}", fill=INK, font=FONT, anchor="rm")


def _line(pen: ImageDraw.ImageDraw, axes: Axes, points: Sequence[tuple[float, float]], colour: str) -> None:
    places = [axes.place(*point) for point in points]
    pen.line(places, fill=colour, width=3)
    for across, down in places:
        pen.ellipse((across - 4, down - 4, across + 4, down + 4), fill=colour)


def _name(
    pen: ImageDraw.ImageDraw, axes: Axes, name: str, end: tuple[float, float], colour: str, named: list[float]
) -> None:
    """Beside the line's end, moved down where another name stands."""
    across, down = axes.place(*end)
    while any(abs(down - other) < FONT_SIZE for other in named):
        down += 2
    named.append(down)
    pen.text((across + 10, down), name, fill=colour, font=FONT, anchor="lm")


def _share(value: float, low: float, high: float) -> float:
    return math.log(value / low) / math.log(high / low) if high > low else 0.5


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten between the two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]
