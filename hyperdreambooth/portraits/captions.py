"""Words for what was drawn. Ancestry gets no word: those weights are for variety, not for labels."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.context import Context
from hyperdreambooth.portraits.identity import Identity
from hyperdreambooth.portraits.styles import Style

IDENTIFIER: Final = "[V]"
CLASS_NOUN: Final = "face"

STYLE_PHRASES: Final[Mapping[Style, tuple[str, ...]]] = {
    Style.PHOTO: ("a photo of {}", "a photograph of {}", "a portrait photo of {}", "a selfie of {}", "{}"),
    Style.PENCIL_SKETCH: ("a pencil sketch of {}", "a pencil drawing of {}", "a sketch of {}", "{} drawn in pencil"),
    Style.CARTOON: ("a cartoon of {}", "a cartoon drawing of {}", "a comic of {}", "{} as a cartoon"),
    Style.OIL_PAINTING: ("an oil painting of {}", "a painting of {} in oil", "{} as an oil painting"),
    Style.WATERCOLOR: ("a watercolor of {}", "a watercolor painting of {}", "{} in watercolor"),
    Style.PIXEL_ART: ("pixel art of {}", "a pixel art portrait of {}", "{} as pixel art"),
    Style.BLACK_AND_WHITE: ("a black and white photo of {}", "a monochrome photo of {}", "{} in black and white"),
    Style.POP_ART: ("pop art of {}", "a pop art poster of {}", "{} in pop art style"),
}
GENERIC_SUBJECTS = (f"a {CLASS_NOUN}", "a person", "someone")
HAIR_NAMES: Final[Mapping[str, tuple[float, float, float]]] = {
    "black": (30, 23, 20),
    "brown": (80, 52, 32),
    "blond": (208, 166, 100),
    "red": (150, 62, 30),
    "grey": (150, 150, 150),
}
BUN_HIDDEN_FROM = 10.0  # degrees of yaw: one bun is beside the neck, on the person's left
GREYED = (Style.PENCIL_SKETCH, Style.BLACK_AND_WHITE, Style.POP_ART)  # these show no true colours


def describe(identity: Identity, *, hat: bool = False) -> str:
    """Age, gender and hair: "a young woman with long brown hair"."""
    hair, age = identity.hair, "young " if identity.age < 0.3 else "old " if identity.age > 0.75 else ""
    if hair.bald and not hat:
        return f"a bald {age}man"
    who = _with_article(f"{age}{'man' if identity.is_man else 'woman'}")
    if hair.bald:
        return who
    length = "tied-back" if hair.buns else "long" if hair.length > 0.55 else "short"
    return f"{who} with {length} {hair_name(hair.colour)} hair"


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def hair_name(colour: Array) -> str:
    """The nearest of the named colours."""
    return min(HAIR_NAMES, key=lambda name: float(np.abs(np.array(HAIR_NAMES[name]) - colour).sum()))


def random_caption(identity: Identity, context: Context, style: Style, rng: np.random.Generator) -> str:
    """One of many true captions: with or without the identifier, with more or fewer details."""
    subject = _random_subject(identity, context, style, rng)
    caption = str(rng.choice(STYLE_PHRASES[style])).format(subject)
    if style not in GREYED and rng.random() < 0.3:
        caption += f" in {context.clothes_name} clothes"
    if style not in (*GREYED, Style.WATERCOLOR) and rng.random() < 0.3:
        caption += f" on {_with_article(context.background_name)} background"
    return caption


def _random_subject(identity: Identity, context: Context, style: Style, rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.25:
        return f"a {IDENTIFIER} {CLASS_NOUN}"
    if kind < 0.4:
        return str(rng.choice(GENERIC_SUBJECTS))
    extras = [extra for extra in _extras(identity, context, style) if rng.random() < 0.6]
    subject = (
        describe(identity, hat=context.hat is not None)
        if rng.random() < 0.7
        else f"a {'man' if identity.is_man else 'woman'}"
    )
    joint = " and " if " with " in subject else " with "
    return subject + (joint + " and ".join(extras) if extras else "")


def _extras(identity: Identity, context: Context, style: Style) -> list[str]:
    """What else is to be seen; nothing that a hat or the turned head hides."""
    hair, hat = identity.hair, context.hat
    seen = {
        "a beard": identity.beard > 0.5,
        "a moustache": identity.moustache > 0.5 >= identity.beard,
        "freckles": identity.freckles > 0,
        "a smile": context.smile > 0.5,
        "curls": hair.ringlets,
        "a fringe": hair.fringe > 0 and not hat,
        "a bun": hair.buns == 1 and context.yaw < BUN_HIDDEN_FROM,
        "two buns": hair.buns > 1 and not hat,
        "glasses": context.glasses is not None,
    }
    worn = [_with_article(hat.kind if style in GREYED else f"{hat.colour_name} {hat.kind}")] if hat else []
    return [name for name, shows in seen.items() if shows] + worn
