"""What it costs to refuse a bomb: for a process of its own, where the decoders' memory counts too."""

import resource
import sys
import time
from pathlib import Path

from core.errors import PhotoRejected
from core.photos import Limits, normalise


def cost_of_refusing(bombs: dict[str, bytes], harmless: list[bytes], limits: Limits) -> dict[str, tuple[str, float]]:
    """Code and CPU seconds of each, once the process is warm; `peak_growth` in bytes, of all together."""
    for content in harmless:
        normalise(content, limits)
    before, costs = peak_bytes(), {}
    for name, content in bombs.items():
        began = time.process_time()
        try:
            normalise(content, limits)
            code = "taken"
        except PhotoRejected as error:
            code = error.code
        costs[name] = code, time.process_time() - began
    return costs | {"peak_growth": ("bytes", peak_bytes() - before)}


def peak_bytes() -> int:
    """The most memory that this process has held."""
    if sys.platform.startswith("linux"):
        # What getrusage says begins with the peak of the process that started this one.
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
