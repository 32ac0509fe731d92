"""What nodes say of themselves, nodes that are gone for good, and where a release is installed."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

PRESENT = sa.text("invalidated_at IS NULL")


def upgrade() -> None:
    """Add the columns; the titles of a project's present nodes differ, and no id comes twice."""
    # SQLite counts ids only in a table that is made so.
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table(
        "compute_nodes",
        recreate="always" if is_sqlite else "never",
        table_kwargs={"sqlite_autoincrement": True},
    ) as batch:
        batch.add_column(sa.Column("os_type", sa.Text(), nullable=True))
        batch.add_column(sa.Column("public_address", sa.String(length=200), nullable=True))
        batch.add_column(sa.Column("slapos_version", sa.String(length=200), nullable=True))
        batch.add_column(sa.Column("invalidated_at", sa.DateTime(timezone=True), nullable=True))
        batch.drop_index(op.f("ix_compute_nodes_project_id_title"))
        batch.create_index(op.f("ix_compute_nodes_allocation_scope"), ["allocation_scope"])
    op.create_index(
        "uq_compute_nodes_project_id_title",
        "compute_nodes",
        ["project_id", "title"],
        unique=True,
        sqlite_where=PRESENT,
        postgresql_where=PRESENT,
    )
    op.create_index(
        op.f("ix_software_installations_url"), "software_installations", ["url"], unique=False
    )
