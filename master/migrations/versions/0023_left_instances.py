"""What nodes have found in partitions that nothing is in by us."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

LEFT = sa.text("left_since IS NOT NULL")


def upgrade() -> None:
    """Add the columns."""
    table = "compute_partitions"
    for name, length in (("left_instance", 440), ("left_title", 200)):
        op.add_column(table, sa.Column(name, sa.String(length), nullable=False, server_default=""))
    op.add_column(table, sa.Column("left_since", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        op.f("ix_compute_partitions_left_since"),
        table,
        ["left_since"],
        sqlite_where=LEFT,
        postgresql_where=LEFT,
    )
