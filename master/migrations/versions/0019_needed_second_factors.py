"""Projects whose people need a second factor."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "projects",
        sa.Column("needs_second_factor", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
