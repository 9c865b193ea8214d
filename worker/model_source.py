"""Where the base model lies that this installation serves. No torch: housekeeping asks as well."""

from pathlib import Path

import hyperdreambooth
from core.settings import Settings

SHIPPED = "mini"


def model_source(settings: Settings) -> str:
    """A folder, the shipped one's included, or a hub id."""
    if settings.base_model == SHIPPED:
        return str(Path(hyperdreambooth.__path__[0]) / SHIPPED)
    return settings.base_model
