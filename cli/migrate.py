"""Bring the database's tables to this release's shape."""

from pathlib import Path

from alembic import command
from alembic.config import Config

import migrations
from core.settings import Settings


def migrate(settings: Settings) -> None:
    """`alembic upgrade head`, wherever we were started from."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__path__[0])))
    # Alembic's configuration interpolates percent signs.
    config.set_main_option("sqlalchemy.url", settings.database_url.get_secret_value().replace("%", "%%"))
    command.upgrade(config, "head")
