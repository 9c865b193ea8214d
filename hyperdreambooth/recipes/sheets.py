"""Sample sheets: many small pictures in one PNG, for eyes."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image


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
