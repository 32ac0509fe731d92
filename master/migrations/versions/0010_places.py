"""What waits for what, how much an instance weighs, which nodes are full, who hosts shared ones."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the table."""
    op.add_column(
        "software_instances",
        sa.Column("waiting_key", sa.String(length=80), server_default="", nullable=False),
    )
    op.add_column(
        "software_instances",
        sa.Column("weight", sa.Integer(), server_default="1", nullable=False),
    )
    op.create_index(
        op.f("ix_software_instances_waiting_key_id"),
        "software_instances",
        ["waiting_key", "id"],
        sqlite_where=sa.text("waiting_key <> ''"),
        postgresql_where=sa.text("waiting_key <> ''"),
    )
    op.add_column(
        "supply_nodes", sa.Column("vacant", sa.Boolean(), server_default=sa.true(), nullable=False)
    )
    op.create_index(
        "ix_supply_nodes_vacant",
        "supply_nodes",
        ["supply_id", "node_id"],
        sqlite_where=sa.text("vacant"),
        postgresql_where=sa.text("vacant"),
    )
    op.create_table(
        "instance_nodes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reference", sa.String(length=440), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("instance_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_instance_nodes_project_id")
        ),
        sa.ForeignKeyConstraint(
            ["instance_id"],
            ["software_instances.id"],
            name=op.f("fk_instance_nodes_instance_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance_nodes")),
        sa.UniqueConstraint("reference", name=op.f("uq_instance_nodes_reference")),
        sa.UniqueConstraint("project_id", "title", name=op.f("uq_instance_nodes_project_id_title")),
        sa.UniqueConstraint("instance_id", name=op.f("uq_instance_nodes_instance_id")),
        sqlite_autoincrement=True,
    )
