"""Sample sheets: many small pictures in one PNG, for eyes."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

MARGIN, LETTERS = 12, 28  # of a labelled picture, in pixels


def save_sheet(pictures: Sequence[Image.Image], path: Path, *, columns: int, enlarge: int = 2) -> None:
    """Write `sheet_of` the pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet_of(pictures, columns=columns, enlarge=enlarge).save(path)


def sheet_of(pictures: Sequence[Image.Image], *, columns: int, enlarge: int = 2) -> Image.Image:
    """Row by row, left to right; all pictures have the size of the first."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (width * columns, height * rows))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % columns * width, place // columns * height))
    return sheet.resize((sheet.width * enlarge, sheet.height * enlarge), Image.Resampling.NEAREST)


def labelled(picture: Image.Image, label: str, *, enlarge: int = 4) -> Image.Image:
    """An enlarged picture in a white frame, its label above it."""
    large = picture.resize((picture.width * enlarge, picture.height * enlarge), Image.Resampling.BICUBIC)
    return _below(label, large)


def titled(title: str, sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets one below the other, under a line of text."""
    width = max(sheet.width for sheet in sheets)
    stack = Image.new("RGB", (width, sum(sheet.height for sheet in sheets)), "white")
    top = 0
    for sheet in sheets:
        stack.paste(sheet, (0, top))
        top += sheet.height
    return _below(title, stack)


def _below(text: str, picture: Image.Image) -> Image.Image:
    strip = LETTERS + 2 * MARGIN
    framed = Image.new("RGB", (picture.width + 2 * MARGIN, picture.height + strip + MARGIN), "white")
    framed.paste(picture, (MARGIN, strip))
    ImageDraw.Draw(framed).text((MARGIN, MARGIN), text, fill="black", font=ImageFont.load_default(LETTERS))
    return framed
