"""Until when the certificate of a remote node counts."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is filled when the certificate is renewed, or given anew."""
    op.add_column(
        "remote_nodes", sa.Column("credentials_until", sa.DateTime(timezone=True), nullable=True)
    )
