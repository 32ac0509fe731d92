"""Releases over HTTP."""

from typing import Any

from flask import Blueprint

from slapos.master import rest
from slapos.master.catalog import service
from slapos.master.http import context
from slapos.master.nodes import service as nodes
from slapos.protocol.errors import NotFound

blueprint = Blueprint("catalog", __name__, url_prefix="/v1")


class InstallationShown(rest.Answer):
    """A release on a node."""

    url: str
    requested_state: str
    reported_state: str | None
    reported_at: rest.Time | None
    message: str


class InstallationsShown(rest.Answer):
    """The releases of a node."""

    installations: list[InstallationShown]


class ProductShown(rest.Answer):
    """A software product; the best of its releases comes first."""

    reference: str
    releases: list[str]


class ProductsShown(rest.Answer):
    """Software products."""

    products: list[ProductShown]


@blueprint.get("/nodes/<path:reference>/installations")
@rest.operation(
    summary="Show the releases of a node, and how far it is with them",
    answer=InstallationsShown,
    errors=(NotFound,),
)
def show_installations(reference: str) -> dict[str, Any]:
    """Show the releases of a node, and how far it is with them."""
    node = nodes.find_node(context().session, reference)
    return {"installations": service.installations(context().session, node.id)}


@blueprint.get("/products")
@rest.operation(summary="Show the software products and their releases", answer=ProductsShown)
def show_products() -> dict[str, Any]:
    """Show the software products and their releases."""
    products = context().settings.software_products
    return {
        "products": [
            {"reference": name, "releases": service.releases_of(products, name)}
            for name in sorted(products)
        ]
    }
