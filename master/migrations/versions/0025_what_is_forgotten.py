"""Indexes by which what is over is found: sessions, links, attempts to sign in, e-mail."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

INDEXES = (
    ("sign_ins", "used_at"),
    ("one_time_links", "expires_at"),
    ("sign_in_attempts", "last_at"),
    ("mails", "made_at"),
)


def upgrade() -> None:
    """Add them."""
    for table, column in INDEXES:
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column], unique=False)
