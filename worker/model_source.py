"""Where the base model lies that this installation serves. No torch: housekeeping asks as well."""

from core.settings import Settings
from hyperdreambooth.shipped import MINI

SHIPPED = "mini"


def model_source(settings: Settings) -> str:
    """A folder, the shipped one's included, or a hub id."""
    if settings.base_model == SHIPPED:
        return str(MINI)
    return settings.base_model
