"""Releases over HTTP."""

from typing import Any

from flask import Blueprint

from slapos.master.catalog import service
from slapos.master.catalog.model import SoftwareInstallation
from slapos.master.http import context
from slapos.master.nodes import service as nodes

blueprint = Blueprint("catalog", __name__, url_prefix="/v1")


@blueprint.get("/nodes/<path:reference>/installations")
def show_installations(reference: str) -> dict[str, Any]:
    """Show the releases of a node, and how far it is with them."""
    node = nodes.find_node(context().session, reference)
    found = service.installations(context().session, node.id)
    return {"installations": [render_installation(installation) for installation in found]}


@blueprint.get("/products")
def show_products() -> dict[str, Any]:
    """Show the software products and their releases."""
    products = context().settings.software_products
    return {
        "products": [
            {"reference": name, "releases": service.releases_of(products, name)}
            for name in sorted(products)
        ]
    }


def render_installation(installation: SoftwareInstallation) -> dict[str, Any]:
    """Return what a client sees of a release on a node."""
    reported = installation.reported_at
    return {
        "url": installation.url,
        "requested_state": installation.requested_state,
        "reported_state": installation.reported_state,
        "reported_at": reported.isoformat() if reported else None,
        "message": installation.message,
    }
