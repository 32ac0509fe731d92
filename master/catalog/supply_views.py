"""Allocation supplies over HTTP."""

from typing import Annotated, Any, cast

from flask import Blueprint
from pydantic import Field
from sqlalchemy.orm import selectinload

from slapos.master import rest
from slapos.master.catalog import supplies
from slapos.master.catalog.model import AllocationSupply, SoftwareRelease, SupplyCell
from slapos.master.catalog.product_views import CHANGES, Url
from slapos.master.http import context
from slapos.master.nodes.model import ComputeNode
from slapos.master.nodes.shapes import LEFT_OUT, Reference, Text
from slapos.protocol.errors import NotFound

blueprint = Blueprint("supplies", __name__, url_prefix="/v1/supplies")

Customer = Annotated[
    str | None, Field(description="Such as P-3: only for this person; null: for all customers.")
]
Nodes = Annotated[list[Text], Field(max_length=100_000, description="Such as COMP-1.")]


class CellShown(rest.Answer):
    """A release and a type that a supply allows."""

    product: str
    release: str
    type: str


class SupplyShown(rest.Answer):
    """Which releases and types may be placed on its nodes, and for whom."""

    reference: str
    project: Reference
    title: str
    enabled: bool
    customer: Reference | None
    shared_in_same_tree: bool
    installs_by_need: bool
    cells: list[CellShown]
    created_at: rest.Time


class SuppliesShown(rest.Paged):
    """Supplies, the oldest first."""

    supplies: list[SupplyShown]


class SuppliesQuery(rest.PagedQuery):
    """Which supplies are looked for."""

    project: Annotated[str | None, Field(description="Such as PROJ-1.")] = None


class CellAsked(rest.Body):
    """A release and a type of a product: PROD-1, a URL, a name."""

    product: Text
    release: Url
    type: Text


class NewSupply(rest.Body):
    """A supply that is to be made."""

    project: Text
    title: Text
    enabled: bool = True
    customer: Customer = None
    shared_in_same_tree: bool = False
    installs_by_need: bool = True
    nodes: Annotated[Nodes, Field(default_factory=list)]
    cells: Annotated[list[CellAsked], Field(default_factory=list)]


class SupplyChanged(rest.Body):
    """What is to be changed of a supply; what is left out stays, lists are all it is to have."""

    title: Text = LEFT_OUT
    enabled: bool = LEFT_OUT
    customer: Customer = LEFT_OUT
    shared_in_same_tree: bool = LEFT_OUT
    installs_by_need: bool = LEFT_OUT
    nodes: Nodes = LEFT_OUT
    cells: list[CellAsked] = LEFT_OUT


class SuppliedNodeShown(rest.Answer):
    """A node of a supply."""

    reference: str
    title: str
    allocation_scope: str


class SuppliedNodesShown(rest.Paged):
    """The nodes of a supply, by reference."""

    nodes: list[SuppliedNodeShown]


class AddedNodes(rest.Body):
    """Nodes that are to be added to a supply."""

    nodes: Nodes


class AddedShown(rest.Answer):
    """How many nodes have come to a supply."""

    added: int


@blueprint.get("")
@rest.operation(
    summary="Show supplies, the oldest first", query=SuppliesQuery, answer=SuppliesShown
)
def show_all(query: SuppliesQuery) -> dict[str, Any]:
    """Show supplies."""
    cells = selectinload(AllocationSupply.cells)
    statement = supplies.matching(context().session, query.project).options(
        selectinload(AllocationSupply.project),
        selectinload(AllocationSupply.customer),
        cells.selectinload(SupplyCell.release).selectinload(SoftwareRelease.product),
        cells.selectinload(SupplyCell.type),
    )
    found = rest.page(context().session, statement, [AllocationSupply.id], query)
    return {"supplies": [render(each) for each in found], "next": found.next}


@blueprint.post("")
@rest.operation(
    summary="Make a supply", body=NewSupply, answer=SupplyShown, status=201, errors=CHANGES
)
def create(body: NewSupply) -> rest.Reply:
    """Make a supply."""
    made = supplies.create(
        context().session,
        context().clock,
        project=body.project,
        title=body.title,
        wanted=_wanted(body, {"project", "title"}),
    )
    return rest.Reply(render(made), location=f"/v1/supplies/{made.reference}")


@blueprint.get("/<reference>")
@rest.operation(summary="Show a supply", answer=SupplyShown, errors=(NotFound,))
def show(reference: str) -> SupplyShown:
    """Show a supply."""
    return render(supplies.find_supply(context().session, reference))


@blueprint.patch("/<reference>")
@rest.operation(
    summary="Change a supply; what is placed by it stays",
    body=SupplyChanged,
    answer=SupplyShown,
    errors=CHANGES,
    matches=True,
)
def change(reference: str, body: SupplyChanged) -> SupplyShown:
    """Change a supply."""
    session = context().session
    rest.check_match(render(supplies.find_supply(session, reference, lock=True)))
    return render(supplies.change(session, reference, _wanted(body, set())))


@blueprint.delete("/<reference>")
@rest.operation(summary="Delete a supply; what is placed by it stays", answer=None, errors=CHANGES)
def remove(reference: str) -> None:
    """Delete a supply."""
    supplies.remove(context().session, reference)


@blueprint.get("/<reference>/nodes")
@rest.operation(
    summary="Show the nodes of a supply, by reference",
    query=rest.PagedQuery,
    answer=SuppliedNodesShown,
    errors=(NotFound,),
)
def show_nodes(reference: str, query: rest.PagedQuery) -> dict[str, Any]:
    """Show the nodes of a supply."""
    session = context().session
    statement = supplies.nodes_of(session, supplies.find_supply(session, reference))
    found = rest.page(session, statement, [ComputeNode.reference], query)
    return {
        "nodes": [
            {
                "reference": each.reference,
                "title": each.title,
                "allocation_scope": each.allocation_scope,
            }
            for each in found
        ],
        "next": found.next,
    }


@blueprint.post("/<reference>/nodes")
@rest.operation(summary="Add nodes to a supply", body=AddedNodes, answer=AddedShown, errors=CHANGES)
def add_nodes(reference: str, body: AddedNodes) -> dict[str, int]:
    """Add nodes to a supply."""
    return {"added": supplies.add_nodes(context().session, reference, body.nodes)}


@blueprint.delete("/<reference>/nodes/<node>")
@rest.operation(summary="Take a node out of a supply", answer=None, errors=CHANGES)
def remove_node(reference: str, node: str) -> None:
    """Take a node out of a supply."""
    supplies.remove_node(context().session, reference, node)


def _wanted(body: NewSupply | SupplyChanged, left_out: set[str]) -> supplies.SupplyChange:
    wanted = body.model_dump(exclude_unset=isinstance(body, SupplyChanged), exclude=left_out)
    if "cells" in wanted:
        wanted["cells"] = [supplies.Cell(**cell) for cell in wanted["cells"]]
    return cast("supplies.SupplyChange", wanted)


def render(supply: AllocationSupply) -> SupplyShown:
    """Return what a client sees of a supply."""
    return SupplyShown(
        reference=supply.reference,
        project=supply.project.reference,
        title=supply.title,
        enabled=supply.enabled,
        customer=supply.customer.reference if supply.customer else None,
        shared_in_same_tree=supply.shared_in_same_tree,
        installs_by_need=supply.installs_by_need,
        cells=[
            CellShown(
                product=cell.release.product.reference,
                release=cell.release.url,
                type=cell.type.name,
            )
            for cell in supply.cells
        ],
        created_at=supply.created_at,
    )
