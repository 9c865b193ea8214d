"""Is this a picture that we accept? If so, the same picture upright, plain sRGB and without metadata.

The order matters: size in bytes, format by its first bytes (never by its label), size in pixels from the header, and
only then a decoder. `core/photo_reader.py` runs this in a process of its own, with limits.
"""

import io
import warnings
from dataclasses import dataclass
from typing import Any

import pi_heif
from PIL import Image, ImageCms, UnidentifiedImageError

from core.errors import PhotoTooLarge, PhotoTooManyPixels, PhotoUnreadable, PhotoUnsupported

# Pillow's plug-in for what the first bytes say. HEIF comes from pi-heif, a build that decodes only.
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})
RELATIVE = ImageCms.Intent.RELATIVE_COLORIMETRIC
LONGEST_SIDE = 4096  # larger photos are shrunk: no face model reads more
LOSSLESS_PIXELS = 1_000_000  # up to here the stored photo is a PNG, above a fine JPEG
JPEG_QUALITY = 95
ORIENTATION = 0x0112  # EXIF
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest photo that is taken."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A photo as it is stored: upright, RGB, no metadata."""

    content: bytes
    content_type: str
    width: int
    height: int


def normalise(content: bytes, limits: Limits) -> Photo:
    """Check and re-encode a photo; PhotoRejected, with its code, for what can't be used."""
    if len(content) > limits.max_bytes:
        raise PhotoTooLarge(f"at most {limits.max_bytes:,} bytes")
    image = _open(content, limits.max_pixels)
    try:
        upright = _upright(image, content)
        return _encoded(_plain_rgb(_in_srgb(upright)))
    except Exception as error:
        # A decoder met damage; Pillow and its plug-ins have no class in common for that.
        raise PhotoUnreadable("the picture could not be decoded") from error


def sniff(content: bytes) -> str | None:
    """Pillow's name for the format that the first bytes announce; None if it is none of ours."""
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content[4:8] != b"ftyp":
        return None
    box = content[8 : min(int.from_bytes(content[:4]), 128)]
    brands = {box[:4]} | {box[start : start + 4] for start in range(8, len(box), 4)}
    if brands & AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & HEIF_BRANDS else None


def _open(content: bytes, max_pixels: int) -> Image.Image:
    """Read the header alone, and refuse what it promises too much of."""
    kind = sniff(content)
    if kind is None:
        raise PhotoUnsupported("send JPEG, PNG, WebP, HEIC or AVIF")
    pi_heif.register_heif_opener()
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(content), formats=[kind])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoTooManyPixels(f"at most {max_pixels:,} pixels") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, RuntimeError, EOFError) as error:
        raise PhotoUnreadable("the picture's header is damaged") from error
    if image.width * image.height > max_pixels:
        raise PhotoTooManyPixels(f"{image.width} x {image.height}; at most {max_pixels:,} pixels")
    return image


def _upright(image: Image.Image, content: bytes) -> Image.Image:
    """Turn the picture as its EXIF orientation says. HEIF's own rotation is applied by its library already."""
    image.load()
    if image.format != "HEIF":
        method = TRANSPOSE.get(_orientation(image))
        return image if method is None else image.transpose(method)
    orientation = image.info.get("original_orientation")
    # Some writers leave the rotation to EXIF alone, though the standard has boxes for it.
    turned_by_the_library = b"irot" in content or b"imir" in content
    method = TRANSPOSE.get(orientation or 1)
    return image if method is None or turned_by_the_library else image.transpose(method)


def _orientation(image: Image.Image) -> int:
    """As EXIF has it. Where that can't be read the pixels still can, and nothing else of it is kept."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def _in_srgb(image: Image.Image) -> Image.Image:
    """The colours that its profile means, in the only space that is left when the profile is dropped."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    if image.mode == "P":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    target = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        meant = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        turned = ImageCms.profileToProfile(
            image, meant, ImageCms.createProfile("sRGB"), outputMode=target, renderingIntent=RELATIVE
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image  # a broken profile, or one for other pixels than these
    assert turned is not None
    return turned


def _plain_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; transparency becomes white, 16-bit gray keeps its upper half."""
    if image.mode.startswith("I") or image.mode == "F":
        image = image.point(lambda level: level / 256).convert("L")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _encoded(image: Image.Image) -> Photo:
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    image.info.clear()
    lossless = image.width * image.height <= LOSSLESS_PIXELS
    options: dict[str, Any] = (
        {"format": "PNG", "compress_level": 3}
        if lossless
        else {"format": "JPEG", "quality": JPEG_QUALITY, "subsampling": 0}
    )
    buffer = io.BytesIO()
    image.save(buffer, **options)
    content_type = "image/png" if lossless else "image/jpeg"
    return Photo(content=buffer.getvalue(), content_type=content_type, width=image.width, height=image.height)
