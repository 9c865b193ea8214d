"""In which forms weights are handed out."""

from enum import StrEnum


class WeightsFormat(StrEnum):
    """`lidb` is our own: the smallest, as stored."""

    LIDB = "lidb"
