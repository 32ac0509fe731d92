"""Whether the master can work."""

from typing import Any

from flask import Blueprint

from slapos.master import migrations
from slapos.master.http import context

blueprint = Blueprint("health", __name__, url_prefix="/v1")


@blueprint.get("/health")
def health() -> dict[str, Any]:
    """Say that the database answers, and which version of the schema it has."""
    version = migrations.version(context().session.connection())
    return {"status": "ok", "migration": version, "current": version == migrations.HEAD}
