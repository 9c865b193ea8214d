"""Pictures are stored in the format that was asked for."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What there is, is PNG."""
    op.execute("ALTER TABLE generated_images ADD COLUMN format character varying(16) NOT NULL DEFAULT 'png'")


def downgrade() -> None:
    """Files keep their names and types."""
    op.execute("ALTER TABLE generated_images DROP COLUMN format")
