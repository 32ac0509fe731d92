"""Remote nodes: other masters, and what is asked of them."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; no node that there is is a remote one."""
    for table in ("compute_nodes", "node_exchanges"):
        op.add_column(
            table, sa.Column("is_remote", sa.Boolean(), nullable=False, server_default=sa.false())
        )
    op.create_table(
        "remote_nodes",
        sa.Column("node_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("project_reference", sa.String(length=200), nullable=False),
        sa.Column("filters", sa.JSON(), nullable=False),
        sa.Column("authority", sa.Text(), nullable=False),
        sa.Column("sealed_credentials", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("asking_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["compute_nodes.id"],
            name=op.f("fk_remote_nodes_node_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_remote_nodes")),
    )
    op.create_table(
        "remote_requests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("instance_id", sa.Integer(), nullable=True),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("software_url", sa.String(length=2000), nullable=False),
        sa.Column("software_type", sa.String(length=200), nullable=False),
        sa.Column("asked_for", sa.DateTime(timezone=True), nullable=True),
        sa.Column("asked_by", sa.Integer(), nullable=True),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("same_since", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["node_id"], ["remote_nodes.node_id"], name=op.f("fk_remote_requests_node_id")
        ),
        sa.ForeignKeyConstraint(
            ["instance_id"],
            ["software_instances.id"],
            name=op.f("fk_remote_requests_instance_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_remote_requests")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_remote_requests_node_id_next_at"), "remote_requests", ["node_id", "next_at"]
    )
    op.create_index(
        op.f("ix_remote_requests_instance_id"), "remote_requests", ["instance_id"], unique=True
    )
