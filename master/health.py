"""Whether the master can work."""

from typing import Any

from flask import Blueprint

from slapos.master import migrations, rest
from slapos.master.http import context, public

blueprint = Blueprint("health", __name__, url_prefix="/v1")


class Health(rest.Answer):
    """Whether the master can work; `current` is whether the schema is this version's."""

    status: str
    migration: str | None
    current: bool


@blueprint.get("/health")
@public
@rest.operation(summary="Say whether the database answers, and its schema", answer=Health)
def health() -> dict[str, Any]:
    """Say that the database answers, and which version of the schema it has."""
    version = migrations.version(context().session.connection())
    return {"status": "ok", "migration": version, "current": version == migrations.HEAD}
