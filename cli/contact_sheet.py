"""The demo's result as one picture: the photo large, and every generated picture with its words beneath."""

import io
import textwrap

import pillow_heif
from PIL import Image, ImageDraw, ImageFont, ImageOps

CELL, GAP, CAPTION = 144, 12, 26
ROWS = 2
PAPER, INK = (250, 249, 246), (40, 40, 40)


def contact_sheet(photo: bytes, pictures: list[bytes], captions: list[str]) -> Image.Image:
    """The photo, as high as ROWS pictures, and the pictures beside it, column by column."""
    columns = -(-len(pictures) // ROWS)
    large = ROWS * CELL + (ROWS - 1) * (GAP + CAPTION)
    width = 2 * GAP + large + columns * (CELL + GAP)
    sheet = Image.new("RGB", (width, GAP + large + CAPTION + GAP), PAPER)
    _put(sheet, photo, (GAP, GAP), large, "the photo")
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        column, row = divmod(index, ROWS)
        corner = (2 * GAP + large + column * (CELL + GAP), GAP + row * (CELL + CAPTION + GAP))
        _put(sheet, picture, corner, CELL, caption)
    return sheet


def upright(encoded: bytes) -> Image.Image:
    """A picture as its EXIF orientation wants it seen, without its metadata."""
    pillow_heif.register_heif_opener()
    return ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")


def _put(sheet: Image.Image, encoded: bytes, corner: tuple[int, int], side: int, caption: str) -> None:
    sheet.paste(ImageOps.fit(upright(encoded), (side, side), Image.Resampling.LANCZOS), corner)
    text = textwrap.shorten(caption, width=side // 7, placeholder="...")
    font = ImageFont.load_default(13)
    ImageDraw.Draw(sheet).text((corner[0] + side / 2, corner[1] + side + 4), text, INK, font, anchor="ma")
