"""A subject has several photos."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Where the one photo lies becomes a list."""
    op.execute("ALTER TABLE subjects ADD COLUMN photo_keys character varying[] NOT NULL DEFAULT '{}'")
    op.execute("UPDATE subjects SET photo_keys = ARRAY[photo_key] WHERE photo_key IS NOT NULL")
    op.execute("ALTER TABLE subjects DROP COLUMN photo_key")


def downgrade() -> None:
    """The first photo stays; the others are objects that the subject's erasure takes along."""
    op.execute("ALTER TABLE subjects ADD COLUMN photo_key character varying")
    op.execute("UPDATE subjects SET photo_key = photo_keys[1]")
    op.execute("ALTER TABLE subjects DROP COLUMN photo_keys")
