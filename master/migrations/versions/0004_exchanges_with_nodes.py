"""What passes between master and node, apart from the node."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and fill it with what was in two columns."""
    op.create_table(
        "node_exchanges",
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("contacted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["compute_nodes.id"],
            name=op.f("fk_node_exchanges_node_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_node_exchanges")),
    )
    op.execute(
        "INSERT INTO node_exchanges (node_id, version, contacted_at) "
        "SELECT id, version, contacted_at FROM compute_nodes"
    )
    op.drop_column("compute_nodes", "contacted_at")
    op.drop_column("compute_nodes", "version")
