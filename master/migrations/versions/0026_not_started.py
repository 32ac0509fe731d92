"""An index of the instances that are not to run: among millions that are, there are few."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

NOT_STARTED = sa.text("requested_state != 'started'")


def upgrade() -> None:
    """Add it."""
    op.create_index(
        op.f("ix_software_instances_requested_state_id"),
        "software_instances",
        ["requested_state", "id"],
        unique=False,
        sqlite_where=NOT_STARTED,
        postgresql_where=NOT_STARTED,
    )
