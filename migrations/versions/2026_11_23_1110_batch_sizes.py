"""Each worker says how many jobs it runs as one batch."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Workers of the version before don't say; they are taken for the slowest."""
    op.add_column("worker_processes", sa.Column("batch_size", sa.Integer(), server_default="1", nullable=False))


def downgrade() -> None:
    """Everybody believes the setting again."""
    op.drop_column("worker_processes", "batch_size")
