"""Captions say what is to be seen, in many ways."""

from dataclasses import replace

import numpy as np

from hyperdreambooth.portraits.captions import (
    CLASS_NOUN,
    GREYED,
    HAIR_NAMES,
    IDENTIFIER,
    STYLE_PHRASES,
    describe,
    hair_name,
    random_caption,
)
from hyperdreambooth.portraits.context import COLOURS, FRAMES, Context, Glasses, Hat, HatKind
from hyperdreambooth.portraits.identity import Identity
from hyperdreambooth.portraits.styles import Style


def captions(identity: Identity, style: Style, *, count: int = 200) -> list[str]:
    rng = np.random.default_rng(0)
    return [random_caption(identity, Context(smile=1), style, rng) for _ in range(count)]


def test_every_style_has_words_of_its_own() -> None:
    assert set(STYLE_PHRASES) == set(Style)
    phrases = [phrase for phrases in STYLE_PHRASES.values() for phrase in phrases]
    assert len(phrases) == len(set(phrases))


def test_a_description_names_gender_age_and_hair(somebody: Identity) -> None:
    black_and_long = replace(somebody.hair, colour=np.array([25, 20, 20]), length=0.9, bald=False)
    woman = replace(somebody, gender=0.1, age=0.9, hair=black_and_long)
    assert describe(woman) == "an old woman with long black hair"
    man = replace(somebody, gender=0.9, age=0.5, hair=replace(black_and_long, bald=True))
    assert describe(man) == "a bald man"
    assert describe(man, hat=True) == "a man"  # nobody can see it


def test_each_named_colour_is_its_own_nearest() -> None:
    assert all(hair_name(np.array(colour)) == name for name, colour in HAIR_NAMES.items())


def test_a_share_of_captions_speaks_of_the_identifier(somebody: Identity) -> None:
    share = np.mean([f"{IDENTIFIER} {CLASS_NOUN}" in caption for caption in captions(somebody, Style.PHOTO)])
    assert 0.15 < share < 0.35


def test_styles_without_true_colours_name_none(somebody: Identity) -> None:
    for style in GREYED:
        assert not any("clothes" in caption or "background" in caption for caption in captions(somebody, style))
    assert any("clothes" in caption for caption in captions(somebody, Style.PHOTO))


def test_a_smile_and_freckles_are_mentioned_only_where_they_are(somebody: Identity) -> None:
    spotless = captions(replace(somebody, freckles=0.0), Style.PHOTO)
    assert not any("freckles" in caption for caption in spotless)
    assert any("a smile" in caption for caption in spotless)
    assert any("freckles" in caption for caption in captions(replace(somebody, freckles=0.8), Style.PHOTO))


def test_hairstyles_and_accessories_are_mentioned_where_they_show(somebody: Identity) -> None:
    styled = replace(somebody, hair=replace(somebody.hair, fringe=0.4, buns=2, ringlets=True))
    glasses = Glasses(frame=FRAMES[0], width=0.4, height=0.3, squareness=2, thickness=0.08)
    cap = Hat(kind=HatKind.CAP, colour_name="orange", colour=COLOURS["orange"])

    def said(context: Context, style: Style) -> str:
        rng = np.random.default_rng(0)
        return " ".join(random_caption(styled, context, style, rng) for _ in range(200))

    bare, worn = said(Context(), Style.PHOTO), said(Context(glasses=glasses, hat=cap), Style.PHOTO)
    for words in ("a fringe", "two buns"):
        assert words in bare
        assert words not in worn  # the cap is on them
    for words in ("glasses", "an orange cap"):
        assert words not in bare
        assert words in worn
    assert "curls" in worn
    assert "with tied-back" in bare
    assert "a long" not in bare
    aside = replace(styled, hair=replace(styled.hair, buns=1))
    rng = np.random.default_rng(0)
    turned = [[random_caption(aside, Context(yaw=yaw), Style.PHOTO, rng) for _ in range(200)] for yaw in (0, 15)]
    assert ["a bun" in " ".join(captions) for captions in turned] == [True, False]
    grey = said(Context(hat=cap), Style.BLACK_AND_WHITE)
    assert "a cap" in grey
    assert "orange" not in grey
