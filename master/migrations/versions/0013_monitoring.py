"""Nodes that are lost, and promises of instances with their history."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; a node is not taken for one that waits until it does."""
    op.add_column(
        "node_exchanges",
        sa.Column("waits", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_table(
        "node_watches",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("listening_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("braked_since", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node_watches")),
    )
    op.create_table(
        "node_losses",
        sa.Column("node_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("heard_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lost_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["compute_nodes.id"],
            name=op.f("fk_node_losses_node_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_node_losses")),
    )
    _make_promises()


def _make_promises() -> None:
    op.create_table(
        "promise_reports",
        sa.Column("instance_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("heard_at", sa.DateTime(timezone=True), nullable=False),
        _of_instance("promise_reports"),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_promise_reports")),
    )
    op.create_table(
        "instance_promises",
        sa.Column("instance_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("failed", sa.Boolean(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        _of_instance("instance_promises"),
        sa.PrimaryKeyConstraint("instance_id", "name", name=op.f("pk_instance_promises")),
    )
    op.create_table(
        "promise_changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("instance_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("failed", sa.Boolean(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        _of_instance("promise_changes"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promise_changes")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_promise_changes_instance_id_id"), "promise_changes", ["instance_id", "id"]
    )
    op.create_index(op.f("ix_promise_changes_told_at"), "promise_changes", ["told_at"])


def _of_instance(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["instance_id"],
        ["software_instances.id"],
        name=op.f(f"fk_{table}_instance_id"),
        ondelete="CASCADE",
    )
