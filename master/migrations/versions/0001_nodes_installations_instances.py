"""Nodes, installations, instances."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "compute_nodes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reference", sa.String(length=200), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("address", sa.String(length=200), nullable=True),
        sa.Column("netmask", sa.String(length=200), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("formatted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("contacted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_compute_nodes")),
        sa.UniqueConstraint("reference", name=op.f("uq_compute_nodes_reference")),
    )
    op.create_table(
        "instance_trees",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance_trees")),
        sa.UniqueConstraint("title", "shared", name=op.f("uq_instance_trees_title_shared")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "compute_partitions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("reference", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["compute_nodes.id"],
            name=op.f("fk_compute_partitions_node_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_compute_partitions")),
        sa.UniqueConstraint(
            "node_id", "reference", name=op.f("uq_compute_partitions_node_id_reference")
        ),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("compute_partitions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_compute_partitions_node_id_state"), ["node_id", "state"], unique=False
        )

    op.create_table(
        "software_installations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("requested_state", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reported_state", sa.String(length=20), nullable=True),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["node_id"],
            ["compute_nodes.id"],
            name=op.f("fk_software_installations_node_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_software_installations")),
        sa.UniqueConstraint("node_id", "url", name=op.f("uq_software_installations_node_id_url")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "partition_addresses",
        sa.Column("partition_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("interface", sa.String(length=200), nullable=False),
        sa.Column("address", sa.String(length=200), nullable=False),
        sa.Column("netmask", sa.String(length=200), nullable=True),
        sa.Column("gateway", sa.String(length=200), nullable=True),
        sa.Column("network", sa.String(length=200), nullable=True),
        sa.ForeignKeyConstraint(
            ["partition_id"],
            ["compute_partitions.id"],
            name=op.f("fk_partition_addresses_partition_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("partition_id", "position", name=op.f("pk_partition_addresses")),
    )
    op.create_table(
        "partition_capabilities",
        sa.Column("partition_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(
            ["partition_id"],
            ["compute_partitions.id"],
            name=op.f("fk_partition_capabilities_partition_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("partition_id", "name", name=op.f("pk_partition_capabilities")),
    )
    op.create_table(
        "software_instances",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reference", sa.String(length=440), nullable=False),
        sa.Column("tree_id", sa.Integer(), nullable=False),
        sa.Column("is_root", sa.Boolean(), nullable=False),
        sa.Column("requester_id", sa.Integer(), nullable=True),
        sa.Column("node_id", sa.Integer(), nullable=True),
        sa.Column("partition_id", sa.Integer(), nullable=True),
        sa.Column("host_id", sa.Integer(), nullable=True),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("software_url", sa.String(length=2000), nullable=False),
        sa.Column("software_type", sa.String(length=200), nullable=False),
        sa.Column("requested_state", sa.String(length=20), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("connection", sa.JSON(), nullable=False),
        sa.Column("filters", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reported_state", sa.String(length=20), nullable=True),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reported_for", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["host_id"],
            ["software_instances.id"],
            name=op.f("fk_software_instances_host_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["node_id"], ["compute_nodes.id"], name=op.f("fk_software_instances_node_id")
        ),
        sa.ForeignKeyConstraint(
            ["partition_id"],
            ["compute_partitions.id"],
            name=op.f("fk_software_instances_partition_id"),
        ),
        sa.ForeignKeyConstraint(
            ["requester_id"],
            ["software_instances.id"],
            name=op.f("fk_software_instances_requester_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["tree_id"], ["instance_trees.id"], name=op.f("fk_software_instances_tree_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_software_instances")),
        sa.UniqueConstraint("partition_id", name=op.f("uq_software_instances_partition_id")),
        sa.UniqueConstraint("reference", name=op.f("uq_software_instances_reference")),
        sa.UniqueConstraint(
            "tree_id",
            "title",
            "shared",
            "is_root",
            name=op.f("uq_software_instances_tree_id_title_shared_is_root"),
        ),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("software_instances", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_software_instances_host_id"), ["host_id"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_software_instances_node_id_software_url"),
            ["node_id", "software_url"],
            unique=False,
        )
        batch_op.create_index(
            batch_op.f("ix_software_instances_requester_id"), ["requester_id"], unique=False
        )
