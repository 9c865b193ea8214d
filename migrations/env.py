"""How Alembic reaches the database: a given connection, a given address, or the setting."""

from alembic import context
from sqlalchemy import Connection, create_engine, text

from core.settings import Settings
from core.tables import Table

# Two replicas that start together migrate one after the other.
MIGRATION_LOCK = 0x484442


def migrate(connection: Connection) -> None:
    """Run the migrations in one transaction that no long query can hold up for ever."""
    context.configure(connection=connection, target_metadata=Table.metadata)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        context.run_migrations()


def main() -> None:
    """Called by Alembic on every command."""
    url = context.config.attributes.get("url") or Settings().database_url.get_secret_value()
    engine = create_engine(url)
    with engine.connect() as connection:
        migrate(connection)
    engine.dispose()


main()
