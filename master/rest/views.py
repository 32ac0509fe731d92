"""The description of REST v1 over HTTP."""

from typing import Any

from flask import Blueprint, current_app

from slapos.master.http import context, public
from slapos.master.rest.openapi import document
from slapos.master.rest.operation import Described, operation
from slapos.master.settings import Profile

blueprint = Blueprint("rest", __name__)

DOCUMENT = "slapos_openapi"


@blueprint.get("/openapi.json")
@public
@operation(summary="Describe all operations", answer=Described())
def show_document() -> dict[str, Any]:
    """Describe all operations."""
    # Views are registered once, so it stays the same; who makes it twice makes the same.
    if DOCUMENT not in current_app.extensions:
        is_full = context().settings.profile is Profile.FULL
        current_app.extensions[DOCUMENT] = document(current_app, is_full=is_full)
    found: dict[str, Any] = current_app.extensions[DOCUMENT]
    return found
