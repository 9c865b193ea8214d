"""In which forms weights are handed out."""

from enum import StrEnum


class WeightsFormat(StrEnum):
    """`lidb` is our own: the smallest, as stored. The others are LoRA files, folded on request."""

    LIDB = "lidb"
    DIFFUSERS = "diffusers"
    KOHYA = "kohya"
