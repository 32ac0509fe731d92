"""Orphans are found by when they became so."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

ORPHANED = sa.text("orphaned_at IS NOT NULL")


def upgrade() -> None:
    """Add the index."""
    op.create_index(
        op.f("ix_software_instances_orphaned_at"),
        "software_instances",
        ["orphaned_at"],
        sqlite_where=ORPHANED,
        postgresql_where=ORPHANED,
    )
