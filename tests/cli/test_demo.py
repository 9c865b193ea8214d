"""What the demo tells a person."""

import io
from typing import Any

import pytest
from PIL import Image

from cli.contact_sheet import contact_sheet
from cli.demo import story

QUEUED: dict[str, Any] = {
    "status": "queued",
    "phase": None,
    "progress": {"step": 0, "total_steps": 0},
    "attempt": 0,
    "eta_seconds": None,
}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "queued"),
        ({"status": "running", "phase": "validating", "attempt": 1}, "validating"),
        (
            {
                "status": "running",
                "phase": "finetuning",
                "progress": {"step": 7, "total_steps": 40},
                "attempt": 2,
                "eta_seconds": 9,
            },
            "finetuning, step 7 of 40, attempt 2, about 9 s left",
        ),
        ({"status": "succeeded", "attempt": 1, "eta_seconds": 0}, "succeeded"),
    ],
)
def test_a_job_is_told_in_a_line(changes: dict[str, Any], line: str) -> None:
    assert story(QUEUED | changes) == line


def test_the_sheet_shows_the_photo_upright_and_every_picture() -> None:
    # 40 x 20, left half red; orientation 6 means: turn a quarter clockwise to see it upright, red at the top.
    photo = Image.new("RGB", (40, 20), "blue")
    photo.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = [encode(Image.new("RGB", (64, 64), colour)) for colour in ("green", "yellow", "cyan")]
    sheet = contact_sheet(encode(photo, exif=exif), pictures, ["one", "two", "three"])
    top, bottom = sheet.getpixel((150, 40)), sheet.getpixel((150, 280))
    assert top == (255, 0, 0)
    assert bottom == (0, 0, 255)
    assert {(0, 128, 0), (255, 255, 0), (0, 255, 255)} <= {colour for _, colour in sheet.getcolors(1 << 20) or []}


def encode(picture: Image.Image, exif: Image.Exif | None = None) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif or Image.Exif())
    return file.getvalue()
