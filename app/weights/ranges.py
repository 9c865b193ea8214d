"""`Range: bytes=...` (RFC 9110, 14): one range; what we don't understand is ignored, as the RFC asks."""

import re

from core.errors import RangeNotSatisfiable

ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def requested_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None for the whole file."""
    found = ONE_RANGE.fullmatch((header or "").replace(" ", ""))
    if not found or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        begin, end = max(size - int(last), 0), size
    else:
        begin, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < begin:
            return None
    if begin >= end:
        raise RangeNotSatisfiable(f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"})
    return begin, end
