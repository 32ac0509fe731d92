"""Requests that other masters answered."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "forwarded_requests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=440), nullable=False),
        sa.Column("master_url", sa.String(length=2000), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forwarded_requests")),
        sa.UniqueConstraint(
            "title", "master_url", name=op.f("uq_forwarded_requests_title_master_url")
        ),
        sqlite_autoincrement=True,
    )
