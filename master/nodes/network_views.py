"""Networks over HTTP."""

from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field
from sqlalchemy.orm import selectinload

from slapos.master import rest
from slapos.master.http import context
from slapos.master.nodes import networks
from slapos.master.nodes.model import ComputerNetwork
from slapos.master.nodes.shapes import Reference, Text
from slapos.protocol.errors import Conflict, Forbidden, NotFound

blueprint = Blueprint("networks", __name__, url_prefix="/v1/networks")


class NetworkShown(rest.Answer):
    """A network that nodes are in."""

    reference: str
    title: str
    project: Reference
    created_at: rest.Time


class NetworksQuery(rest.PagedQuery):
    """Which networks are looked for."""

    project: Annotated[str | None, Field(description="Such as PROJ-1.")] = None


class NetworksShown(rest.Paged):
    """Networks, the oldest first."""

    networks: list[NetworkShown]


class NewNetwork(rest.Body):
    """A network that is to be made."""

    project: Text
    title: Text


class NetworkChanged(rest.Body):
    """What is to be changed of a network."""

    title: Text


@blueprint.get("")
@rest.operation(
    summary="Show networks, the oldest first", query=NetworksQuery, answer=NetworksShown
)
def show_all(query: NetworksQuery) -> dict[str, Any]:
    """Show networks."""
    statement = networks.networks(context().session, query.project)
    statement = statement.options(selectinload(ComputerNetwork.project))
    found = rest.page(context().session, statement, [ComputerNetwork.id], query)
    return {"networks": found.items, "next": found.next}


@blueprint.post("")
@rest.operation(
    summary="Make a network",
    body=NewNetwork,
    answer=NetworkShown,
    status=201,
    errors=(NotFound, Forbidden, Conflict),
)
def create(body: NewNetwork) -> rest.Reply:
    """Make a network."""
    made = networks.create(context().session, context().clock, body.project, body.title)
    return rest.Reply(NetworkShown.model_validate(made), location=f"/v1/networks/{made.reference}")


@blueprint.get("/<reference>")
@rest.operation(summary="Show a network", answer=NetworkShown, errors=(NotFound,))
def show(reference: str) -> NetworkShown:
    """Show a network."""
    return NetworkShown.model_validate(networks.find_network(context().session, reference))


@blueprint.patch("/<reference>")
@rest.operation(
    summary="Give a network another title",
    body=NetworkChanged,
    answer=NetworkShown,
    errors=(NotFound, Forbidden, Conflict),
    matches=True,
)
def change(reference: str, body: NetworkChanged) -> NetworkShown:
    """Give a network another title."""
    session = context().session
    present = networks.find_network(session, reference, lock=True)
    rest.check_match(NetworkShown.model_validate(present))
    return NetworkShown.model_validate(networks.rename(session, reference, body.title))


@blueprint.delete("/<reference>")
@rest.operation(
    summary="Remove a network that no node is in",
    answer=None,
    errors=(NotFound, Forbidden, Conflict),
)
def remove(reference: str) -> None:
    """Remove a network that no node is in."""
    networks.remove(context().session, reference)
