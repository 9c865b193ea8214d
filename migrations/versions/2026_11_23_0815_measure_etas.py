"""What was promised, so that it can be compared with what came."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0006"
branch_labels = None
depends_on = None

COLUMNS = ("promised_at", "start_promised_at")


def upgrade() -> None:
    """Jobs from before promised nothing."""
    for name in COLUMNS:
        op.add_column("jobs", sa.Column(name, sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """ETAs are given and forgotten again."""
    for name in COLUMNS:
        op.drop_column("jobs", name)
