"""Photos made by code, one of each kind that phones and strangers send."""

import io
import random
import struct
import zipfile
import zlib

import numpy as np
import pillow_heif
from PIL import Image, PngImagePlugin

pillow_heif.register_heif_opener()

ORIENTATION, GPS_INFO, MAKER_NOTE, EXIF_OFFSET = 0x0112, 0x8825, 0x927C, 0x8769
WIDTH, HEIGHT = 96, 64
RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 40), (30, 60, 220), (240, 240, 240)


def corners(mode: str = "RGB") -> Image.Image:
    """A landscape picture whose four corners tell how it was turned: red, green, blue, white from the upper left."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[: HEIGHT // 2, : WIDTH // 2], pixels[: HEIGHT // 2, WIDTH // 2 :] = RED, GREEN
    pixels[HEIGHT // 2 :, : WIDTH // 2], pixels[HEIGHT // 2 :, WIDTH // 2 :] = BLUE, WHITE
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int = 1, *, private: bool = False) -> bytes:
    """EXIF with an orientation, and on request a place and a maker's note."""
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    if private:
        tags[GPS_INFO] = {1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 17.0)}
        tags.get_ifd(EXIF_OFFSET)[MAKER_NOTE] = b"secret maker note"
    return tags.tobytes()


def stored_turned(orientation: int) -> Image.Image:
    """`corners()` as a camera with that orientation stores it: EXIF's turn makes it upright again."""
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    return corners() if undo is None else corners().transpose(undo)


def turned_jpeg(orientation: int) -> bytes:
    return encoded(stored_turned(orientation), "JPEG", exif=exif(orientation), quality=95)


def turned_heic(orientation: int) -> bytes:
    """As phones write it: the container's own rotation (`irot`, `imir`), and the same in EXIF."""
    return encoded(stored_turned(orientation), "HEIF", exif=exif(orientation), quality=95)


def heic_with_exif_orientation_alone(orientation: int) -> bytes:
    """A picture whose writer left the rotation to EXIF: the container says nothing."""
    plain = encoded(stored_turned(orientation), "HEIF", exif=exif(1), quality=95)
    upright, turned = exif(1), exif(orientation)
    assert len(upright) == len(turned)
    assert plain.count(upright[6:]) == 1
    return plain.replace(upright[6:], turned[6:])


def with_private_metadata(kind: str) -> bytes:
    """GPS position, a maker's note and, in a PNG, a text."""
    options: dict[str, object] = {"exif": exif(private=True)}
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "secret comment")
        options["pnginfo"] = text
    return encoded(corners(), kind, **options)


def bomb(side: int = 12_000) -> bytes:
    """A small PNG of 144 megapixels: one bit a pixel, all zero."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    """Small files of every format whose headers promise 144 megapixels, and one that promises a long text."""
    side = 12_000
    tall, wide = struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">II", WIDTH, HEIGHT)
    text = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    png = encoded(corners(), "PNG")
    return {
        "PNG": bomb(side),
        "PNG of 64 megapixels": bomb(8_000),
        "JPEG": _patched(encoded(corners(), "JPEG"), tall, struct.pack(">HH", side, side)),
        "WEBP": _patched(encoded(corners(), "WEBP"), struct.pack("<HH", WIDTH, HEIGHT), struct.pack("<HH", side, side)),
        "HEIF": _patched(encoded(corners(), "HEIF"), b"ispe\0\0\0\0" + wide, _ispe(side)),
        "AVIF": _patched(encoded(corners(), "AVIF"), b"ispe\0\0\0\0" + wide, _ispe(side)),
        "PNG with a text of 100 MB": png[:33] + _chunk(b"zTXt", text) + png[33:],
    }


def _ispe(side: int) -> bytes:
    return b"ispe\0\0\0\0" + struct.pack(">II", side, side)


def _patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) == 1
    return content.replace(old, new)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def animated(kind: str) -> bytes:
    """Three pictures, the upright one first."""
    frames = [corners().rotate(180), corners().rotate(180).convert("L").convert("RGB")]
    return encoded(corners(), kind, save_all=True, append_images=frames, duration=100)


def not_pictures() -> dict[str, bytes]:
    """What is no picture of ours, whatever its name says."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("selfie.jpg", encoded(corners(), "JPEG"))
    return {
        "empty": b"",
        "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF",
        "zip": archive.getvalue(),
        "html": b"<!doctype html><script>alert(1)</script>",
        "gif": encoded(corners("P"), "GIF"),
        "mp4": struct.pack(">I", 24) + b"ftypisom" + b"\0\0\2\0isomiso2mp41",
        "one byte": b"\xff",
    }


def polyglots() -> dict[str, bytes]:
    """Pictures that are something else too: what we store must be the picture alone."""
    jpeg = encoded(corners(), "JPEG")
    return {
        "jpeg and zip": jpeg + not_pictures()["zip"],
        "jpeg and html": jpeg + not_pictures()["html"],
        "jpeg and svg": jpeg + not_pictures()["svg"],
        "png and pdf": encoded(corners(), "PNG") + not_pictures()["pdf"],
    }


def mutations(count: int, seed: int = 0) -> list[bytes]:
    """Real pictures with bytes changed, cut out or doubled."""
    rng = random.Random(seed)
    kinds = [encoded(corners(), kind) for kind in ("JPEG", "PNG", "WEBP", "HEIF", "AVIF")]
    return [_mutated(bytearray(rng.choice(kinds)), rng) for _ in range(count)]


def _mutated(content: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 12)):
        position = rng.randrange(len(content))
        match rng.randrange(3):
            case 0:
                content[position] = rng.randrange(256)
            case 1 if len(content) > 64:
                del content[position : position + rng.randint(1, 40)]
            case _:
                content[position:position] = content[position : position + rng.randint(1, 40)]
    return bytes(content)
