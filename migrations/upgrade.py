"""Bring a database to the newest tables, from Python."""

from pathlib import Path

from alembic import command
from alembic.config import Config


def alembic_config(database_url: str) -> Config:
    """What `alembic.ini` says, for a given database; works from an installed package too."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["url"] = database_url
    return config


def upgrade(database_url: str) -> None:
    """Run every migration that the database lacks."""
    command.upgrade(alembic_config(database_url), "head")
