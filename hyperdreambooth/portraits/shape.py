"""The surface of one person's head with one expression: a weighted sum of targets on the mean head."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from hyperdreambooth.portraits.arrays import Array
from hyperdreambooth.portraits.context import Context
from hyperdreambooth.portraits.head import Head
from hyperdreambooth.portraits.identity import Identity

ANCESTRIES = ("african", "asian", "caucasian")
ONE_SIDED_STRENGTH = 0.8  # sliders without an opposite are shapes of their own (a square head): never the full one


def head_shape(head: Head, identity: Identity, context: Context) -> Array:
    """Where each vertex of this person is. [used vertices, 3]"""
    weights: dict[str, float] = defaultdict(float)
    for target, weight in (*_macro(identity), *_details(head, identity), *_expression(context)):
        weights[target] += weight
    present = [(head.target_index[t], w) for t, w in weights.items() if w and t in head.target_index]
    index, amount = (np.array(column) for column in zip(*present, strict=True))
    moves = head.targets[index].reshape(len(index), -1)
    return np.asarray(head.mean + (amount.astype(np.float32) @ moves).reshape(-1, 3))


def _macro(identity: Identity) -> Iterator[tuple[str, float]]:
    """Averages over many scanned bodies, blended by gender, age, ancestry, weight and muscle."""
    genders = {"female": 1 - identity.gender, "male": identity.gender}
    ages = {"young": 1 - identity.age, "old": identity.age}
    for gender, gender_share in genders.items():
        for age, age_share in ages.items():
            share = gender_share * age_share
            for name, ancestry_share in zip(ANCESTRIES, identity.ancestry, strict=True):
                yield f"macrodetails/{name}-{gender}-{age}", share * float(ancestry_share)
            for muscle, muscle_share in _three_steps(identity.muscle).items():
                for weight, weight_share in _three_steps(identity.weight).items():
                    target = f"macrodetails/universal-{gender}-{age}-{muscle}muscle-{weight}weight"
                    yield target, share * muscle_share * weight_share


def _three_steps(amount: float) -> dict[str, float]:
    return {"min": max(0.0, 1 - 2 * amount), "average": 1 - abs(2 * amount - 1), "max": max(0.0, 2 * amount - 1)}


def _details(head: Head, identity: Identity) -> Iterator[tuple[str, float]]:
    for slider, value in zip(head.sliders, identity.sliders, strict=True):
        amount = float(value) if slider.below else max(float(value), 0.0) * ONE_SIDED_STRENGTH
        for target in slider.above if amount > 0 else slider.below:
            yield target, abs(amount)


def _expression(context: Context) -> Iterator[tuple[str, float]]:
    yield "expression/mouth-corner-puller", context.smile
    yield "expression/mouth-elevation", context.smile * 0.2
    yield "expression/mouth-open", context.mouth_open
    yield "expression/eyebrows-left-up", context.brows_up
    yield "expression/eyebrows-right-up", context.brows_up
