"""A portrait of somebody who doesn't exist and whom `mini` has never seen, for a demo without a photo."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from hyperdreambooth.portraits.context import random_context
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.identity import make_identity
from hyperdreambooth.portraits.render import render
from hyperdreambooth.portraits.styles import Style, draw

DEMO_PERSON = 13
HELD_OUT = 1_000_000  # people with smaller numbers are `mini`'s training data
DRAWN_PIXELS, PHOTO_PIXELS = 96, 384  # the renderer is made for small pictures


def held_out_portrait(number: int, *, cache: Path) -> bytes:
    """The photo of a rendered person, as a JPEG like a phone's."""
    head = Head.load(cache=cache)
    seed = HELD_OUT + number
    identity = make_identity(seed, slider_count=len(head.sliders))
    context = random_context(np.random.default_rng(seed), pose_degrees=4)
    rendered = render(head, identity, context, size=DRAWN_PIXELS)
    photo = draw(rendered, Style.PHOTO, size=DRAWN_PIXELS, seed=seed).convert("RGB")
    file = io.BytesIO()
    photo.resize((PHOTO_PIXELS, PHOTO_PIXELS), Image.Resampling.BICUBIC).save(file, "JPEG", quality=92)
    return file.getvalue()
