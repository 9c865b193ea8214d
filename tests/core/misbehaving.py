"""Decoders gone wrong, for the processes that run them: picklable by name."""

import os
import threading

from core.photos import Limits


def abort(content: bytes, limits: Limits) -> None:
    """Die as a decoder with a memory fault does."""
    os.abort()


def hang(content: bytes, limits: Limits) -> None:
    """Never come back."""
    threading.Event().wait()


def gorge(content: bytes, limits: Limits) -> int:
    """Ask for more memory than a decoder may have."""
    return len(bytearray(4_000_000_000))
