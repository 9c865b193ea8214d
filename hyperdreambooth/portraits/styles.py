"""Eight ways to draw a render. Each is a function of the picture and its maps, and keeps the person recognisable."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.render import BACKDROP, Render


class Style(StrEnum):
    """The words by which captions call them."""

    PHOTO = "photo"
    PENCIL_SKETCH = "pencil sketch"
    CARTOON = "cartoon"
    OIL_PAINTING = "oil painting"
    WATERCOLOR = "watercolor"
    PIXEL_ART = "pixel art"
    BLACK_AND_WHITE = "black and white"
    POP_ART = "pop art"


PIXEL_ART_SIDE, PIXEL_ART_COLOURS = 16, 12
POP_PALETTES = np.array(
    [
        [[32, 14, 84], [226, 30, 110], [255, 176, 40], [255, 246, 190]],
        [[10, 40, 70], [20, 150, 170], [255, 120, 90], [255, 240, 210]],
    ],
    np.float32,
)


def draw(rendered: Render, style: Style, *, size: int, seed: int) -> Image.Image:
    """The finished picture, `size` pixels wide. The seed decides what a hand would: paper, palette."""
    drawn = DRAWN_BY[style](rendered, np.random.default_rng(seed))
    return _picture(drawn).resize((size, size), Image.Resampling.BOX)


def _picture(drawn: Array) -> Image.Image:
    return Image.fromarray(np.clip(drawn, 0, 255).astype(np.uint8))


def _grey(rendered: Render) -> Array:
    return np.asarray(rendered.picture.mean(2), np.float32)


def _blurred(picture: Array, radius: float) -> Array:
    return np.asarray(_picture(picture).filter(ImageFilter.GaussianBlur(radius)), np.float32)


def _slope(field: Array) -> Array:
    down, across = np.gradient(field, axis=(0, 1))
    return np.asarray(np.hypot(down, across), np.float32)


def _outlines(rendered: Render) -> Array:
    """Where a pencil would draw a line: edges of brightness, of the surface, and of what lies where. 0..1"""
    brightness = _slope(_blurred(_grey(rendered), 1)) / 18
    surface = _slope(rendered.normals).sum(2) * 0.35
    regions = _slope(rendered.regions.astype(np.float32)) * 2
    return np.asarray(np.clip(np.maximum(brightness + surface, regions), 0, 1))


def _saturate(drawn: Array, amount: float) -> Array:
    grey = drawn.mean(2, keepdims=True)
    return np.asarray(grey + (drawn - grey) * amount, np.float32)


def _blotches(rng: np.random.Generator, pixels: int, *, cells: int) -> Array:
    """Smooth stains, -0.5..0.5. [pixels, pixels, 1]"""
    coarse = Image.fromarray(rng.integers(0, 255, (cells, cells), dtype=np.uint8))
    fine = coarse.resize((pixels, pixels), Image.Resampling.BICUBIC)
    return np.asarray(np.asarray(fine, np.float32)[..., None] / 255 - 0.5)


def _photo(rendered: Render, _: np.random.Generator) -> Array:
    return np.asarray(rendered.picture, np.float32)


def _black_and_white(rendered: Render, _: np.random.Generator) -> Array:
    contrast = np.clip((_grey(rendered) - 128) * 1.25 + 128, 0, 255)
    return np.repeat(contrast[..., None], 3, axis=2)


def _pencil_sketch(rendered: Render, _: np.random.Generator) -> Array:
    grey = _grey(rendered)
    # "Colour dodge": dividing by the blurred picture leaves paper white and keeps only what changes.
    dodged = np.clip(grey / np.maximum(_blurred(grey, 6), 1) * 255, 0, 255)
    lines = dodged * (1 - 0.75 * _outlines(rendered)) * np.where(grey < 70, 0.62, 1)
    paper = np.where(rendered.regions == BACKDROP, 246, lines)
    return np.asarray(paper[..., None] * np.array([0.99, 0.98, 0.95]), np.float32)


def _cartoon(rendered: Render, _: np.random.Generator) -> Array:
    light = np.maximum(_grey(rendered), 8)[..., None]
    flat = np.select([light < 55, light < 110, light < 175], [42.0, 92.0, 150.0], 215.0)
    ink = 1 - np.clip(_outlines(rendered) * 1.5 - 0.35, 0, 1)
    return np.asarray(_saturate(rendered.picture / light * flat, 1.6) * ink[..., None])


def _oil_painting(rendered: Render, rng: np.random.Generator) -> Array:
    drawn = _saturate(_kuwahara(rendered.picture.astype(np.float32), radius=3), 1.45)
    strokes = 1 + 0.3 * _blotches(rng, len(drawn), cells=14)
    return np.asarray(drawn * strokes * np.array([1.06, 0.98, 0.80]), np.float32)


def _watercolor(rendered: Render, rng: np.random.Generator) -> Array:
    drawn = 255 - (255 - _blurred(_kuwahara(rendered.picture.astype(np.float32), radius=3), 1.6)) * 0.62
    backdrop = (rendered.regions == BACKDROP)[..., None]
    drawn = drawn + 60 * _blotches(rng, len(drawn), cells=6) * backdrop - 55 * _outlines(rendered)[..., None]
    return np.asarray(np.where(backdrop, drawn * 0.35 + 255 * 0.65, drawn))


def _pixel_art(rendered: Render, _: np.random.Generator) -> Array:
    bright = _picture(_saturate(rendered.picture.astype(np.float32), 1.4))
    small = bright.resize((PIXEL_ART_SIDE, PIXEL_ART_SIDE), Image.Resampling.BOX)
    few = small.quantize(PIXEL_ART_COLOURS, dither=Image.Dither.NONE).convert("RGB")
    return np.asarray(few.resize(bright.size, Image.Resampling.NEAREST), np.float32)


def _pop_art(rendered: Render, rng: np.random.Generator) -> Array:
    palette = POP_PALETTES[rng.integers(len(POP_PALETTES))]
    drawn = palette[np.digitize(_grey(rendered), [58, 112, 172])]
    pixels = len(drawn)
    down, across = np.mgrid[:pixels, :pixels]
    period = pixels // 8
    dots = (across % period - period / 2) ** 2 + (down % period - period / 2) ** 2 < (period / 3.2) ** 2
    wall = np.where(dots[..., None], palette[1], palette[2])
    return np.asarray(np.where((rendered.regions == BACKDROP)[..., None], wall, drawn))


def _kuwahara(picture: Array, *, radius: int) -> Array:
    """Each pixel takes the mean of the calmest of four squares that touch it: flat strokes with sharp edges."""
    height, width, _ = picture.shape
    padded = np.pad(picture, ((radius, radius), (radius, radius), (0, 0)), "edge")
    grey = padded.mean(2)
    mean = _box_mean(padded, radius + 1)
    variance = _box_mean(grey**2, radius + 1) - _box_mean(grey, radius + 1) ** 2
    corners = [(down, across) for down in (0, radius) for across in (0, radius)]
    calm = np.stack([variance[d : d + height, a : a + width] for d, a in corners]).argmin(0)
    means = np.stack([mean[d : d + height, a : a + width] for d, a in corners])
    return np.asarray(np.take_along_axis(means, calm[None, ..., None], 0)[0], np.float32)


def _box_mean(values: Array, side: int) -> Array:
    edges = [(1, 0), (1, 0)] + [(0, 0)] * (values.ndim - 2)
    total = np.pad(values.astype(np.float64), edges).cumsum(0).cumsum(1)
    box = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    return np.asarray(box / side**2, np.float32)


DRAWN_BY: Final[Mapping[Style, Callable[[Render, np.random.Generator], Array]]] = {
    Style.PHOTO: _photo,
    Style.PENCIL_SKETCH: _pencil_sketch,
    Style.CARTOON: _cartoon,
    Style.OIL_PAINTING: _oil_painting,
    Style.WATERCOLOR: _watercolor,
    Style.PIXEL_ART: _pixel_art,
    Style.BLACK_AND_WHITE: _black_and_white,
    Style.POP_ART: _pop_art,
}
