"""What Alembic runs; the connection and its transaction come from `migrations.upgrade`."""

from typing import Any, Literal

from alembic import context

from slapos.master.database import UTCDateTime
from slapos.master.migrations.schema import metadata


def render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write our own type as what it is in the database, so that old migrations stay true."""
    if kind == "type" and isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    return False


connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("start migrations with slapos.master.migrations.upgrade")
# Not in batches: on SQLite these drop a table to make it anew, and its rows' dependents with it.
context.configure(connection=connection, target_metadata=metadata, render_item=render)
context.run_migrations()
