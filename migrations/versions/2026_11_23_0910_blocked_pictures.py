"""A blocked picture has a row and no object."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Every picture so far has its object."""
    op.alter_column("generated_images", "object_key", nullable=True)


def downgrade() -> None:
    """Blocked pictures can't be told any more."""
    op.execute("DELETE FROM generated_images WHERE object_key IS NULL")
    op.alter_column("generated_images", "object_key", nullable=False)
