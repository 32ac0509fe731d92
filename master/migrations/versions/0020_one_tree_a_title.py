"""A title is that of one tree of a person in a project, where trees have references.

What had been ordered both as a service and as a shared instance keeps the title as a service; the
shared one is called after its reference, too.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

HAS_REFERENCE = sa.text("reference IS NOT NULL")
NEW_TITLE = "substr(title, 1, 150) || ' ' || reference"
TWICE = (
    "shared AND reference IS NOT NULL AND EXISTS (SELECT 1 FROM instance_trees AS other "
    "WHERE other.project_id = instance_trees.project_id "
    "AND other.owner_id = instance_trees.owner_id AND other.title = instance_trees.title "
    "AND other.reference IS NOT NULL AND NOT other.shared)"
)


def upgrade() -> None:
    """Give second ones another title, and add the index."""
    twice = sa.text(f"SELECT id, {NEW_TITLE} FROM instance_trees WHERE {TWICE}")
    connection = op.get_bind()
    for tree, title in connection.execute(twice).all():
        row = {"tree": tree, "title": title}
        connection.execute(
            sa.text("UPDATE instance_trees SET title = :title WHERE id = :tree"), row
        )
        connection.execute(
            sa.text(
                "UPDATE software_instances SET title = :title WHERE tree_id = :tree AND is_root"
            ),
            row,
        )
    op.create_index(
        "uq_instance_trees_title_with_reference",
        "instance_trees",
        ["project_id", "owner_id", "title"],
        unique=True,
        sqlite_where=HAS_REFERENCE,
        postgresql_where=HAS_REFERENCE,
    )
