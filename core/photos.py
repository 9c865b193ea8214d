"""Is this a picture we accept, and its pixels alone: format by magic bytes, size from the header, upright, sRGB, no metadata.

`normalize_photo` may need a lot of memory and time for what a stranger sends: `app/photo_decoder.py` runs it in a limited process.
"""

import warnings
from io import BytesIO

from PIL import Image, ImageCms, ImageOps
from pillow_heif import HeifImageFile

from core.errors import PhotoTooManyPixels, PhotoUnreadable, PhotoUnsupported

# Larger photos are scaled down to this: a face that fills a fifteenth of one is still 200 pixels wide.
MAX_SIDE = 3072
ORIENTATION = 0x0112
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})
SIXTEEN_BIT = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})
FTYP_CHARACTERS = 64


def photo_format(content: bytes) -> str:
    """The format by its magic bytes, whatever name or label it came under."""
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content[4:8] == b"ftyp":
        return _iso_format(content)
    raise PhotoUnsupported("We read JPEG, PNG, WebP, HEIC and AVIF.")


def _iso_format(content: bytes) -> str:
    """HEIC and AVIF share a container: the brands in its first box tell them apart."""
    end = min(int.from_bytes(content[:4], "big"), FTYP_CHARACTERS)
    brands = {content[start : start + 4] for start in (8, *range(16, end, 4))}
    if brands & AVIF_BRANDS:
        return "AVIF"
    if brands & HEIF_BRANDS:
        return "HEIF"
    raise PhotoUnsupported("We read JPEG, PNG, WebP, HEIC and AVIF.")


def normalize_photo(content: bytes, *, max_pixels: int) -> bytes:
    """The first picture of the file as an upright sRGB PNG without metadata."""
    image = _open(content, photo_format(content))
    if image.width * image.height > max_pixels:
        raise PhotoTooManyPixels(f"{image.width} x {image.height} pixels; at most {max_pixels} are read.")
    try:
        image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # JPEG: decode at the half or the quarter where that is enough
        upright = ImageOps.exif_transpose(_first_frame(image, content))
        pixels = _srgb(_eight_bits(upright), upright.info.get("icc_profile"))
        pixels.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        return _png(pixels)
    except Exception as error:  # Pillow's decoders raise whatever their damaged input leads them to
        raise PhotoUnreadable from error


def _open(content: bytes, kind: str) -> Image.Image:
    """Read the header; no pixel is decoded."""
    try:
        with warnings.catch_warnings():
            # Our own limit is checked before decoding.
            warnings.simplefilter("ignore")
            if kind == "HEIF":
                return HeifImageFile(BytesIO(content))
            return Image.open(BytesIO(content), formats=[kind])
    except Image.DecompressionBombError as error:
        raise PhotoTooManyPixels from error
    except Exception as error:  # the header itself is damaged
        raise PhotoUnreadable from error


def _first_frame(image: Image.Image, content: bytes) -> Image.Image:
    """Decode. The HEIC library has applied the container's rotation; the EXIF tag counts only where the container has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata, which we drop anyway
        orientation = image.info.get("original_orientation")
        image.load()
    if orientation and b"irot" not in content and b"imir" not in content:
        image.getexif()[ORIENTATION] = orientation
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """RGB or CMYK with eight bits a channel; what is transparent becomes white."""
    if image.mode in SIXTEEN_BIT:
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode == "CMYK":
        return image
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours of another space (phones use Display P3) as sRGB; a broken profile is no reason to refuse a photo."""
    if profile:
        try:
            source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            return converted if converted is not None else image.convert("RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
    return image.convert("RGB")


def _png(image: Image.Image) -> bytes:
    """Only pixels: a new image carries no text, profile or EXIF over."""
    clean = Image.new("RGB", image.size)
    clean.paste(image)
    out = BytesIO()
    clean.save(out, "PNG", compress_level=1)
    return out.getvalue()
