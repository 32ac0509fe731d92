"""Which reports of nodes have been taken, since when things are so, and a mark of each change."""

import sqlalchemy as sa
from alembic import op

from slapos.system.identifier import SystemIdentifiers

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and the columns; a mark of another database is never the same."""
    op.create_table(
        "taken_reports",
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("report_id", sa.String(length=32), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["compute_nodes.id"],
            name=op.f("fk_taken_reports_node_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("node_id", "report_id", name=op.f("pk_taken_reports")),
    )
    op.create_index(
        op.f("ix_taken_reports_node_id_taken_at"), "taken_reports", ["node_id", "taken_at"]
    )
    op.add_column(
        "software_instances", sa.Column("reported_since", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "node_exchanges",
        sa.Column("change", sa.String(length=32), nullable=False, server_default=""),
    )
    exchanges = sa.table("node_exchanges", sa.column("change"))
    op.execute(exchanges.update().values(change=SystemIdentifiers().token(16)))
