"""Releases on nodes over HTTP."""

from typing import Annotated, Any

from flask import Blueprint
from pydantic import Field
from sqlalchemy.orm import contains_eager

from slapos.master import rest
from slapos.master.catalog import service
from slapos.master.catalog.model import SoftwareInstallation
from slapos.master.catalog.product_views import CHANGES, Url
from slapos.master.http import context
from slapos.master.identity.rights import Action, require
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes import service as nodes
from slapos.master.nodes.shapes import Reference, Text
from slapos.protocol.errors import NotFound
from slapos.protocol.states import InstallationState

blueprint = Blueprint("catalog", __name__, url_prefix="/v1")


class InstallationShown(rest.Answer):
    """A release on a node."""

    reference: str
    url: str
    requested_state: str
    reported_state: str | None
    reported_at: rest.Time | None
    message: str


class InstallationsShown(rest.Answer):
    """The releases of a node."""

    installations: list[InstallationShown]


class NodesInstallationShown(InstallationShown):
    """A release on a node, and which node that is."""

    node: Reference


class NodesInstallationsShown(rest.Paged):
    """Releases on nodes, the first wanted first."""

    installations: list[NodesInstallationShown]


class InstallationsQuery(rest.PagedQuery):
    """Which installations are looked for."""

    node: Annotated[str | None, Field(description="Such as COMP-1.")] = None
    url: Annotated[str | None, Field(description="That of the release.")] = None
    project: Annotated[str | None, Field(description="Such as PROJ-1.")] = None


class NewInstallation(rest.Body):
    """A release that is to be on a node."""

    node: Text
    url: Url


@blueprint.get("/nodes/<path:reference>/installations")
@rest.operation(
    summary="Show the releases of a node, and how far it is with them",
    answer=InstallationsShown,
    errors=(NotFound,),
)
def show_installations(reference: str) -> dict[str, Any]:
    """Show the releases of a node, and how far it is with them."""
    session = context().session
    node = nodes.find_node(session, reference)
    subject = Subject(Kind.INSTALLATION, "", node.project_id, node_id=node.id)
    require(session, Action.SEE, subject)
    return {"installations": service.installations(session, node.id)}


@blueprint.get("/installations")
@rest.operation(
    summary="Show releases on nodes, the first wanted first",
    query=InstallationsQuery,
    answer=NodesInstallationsShown,
)
def show_all(query: InstallationsQuery) -> dict[str, Any]:
    """Show releases on nodes."""
    session = context().session
    statement = service.matching(
        session, node=query.node, url=query.url, project=query.project
    ).options(contains_eager(SoftwareInstallation.node))
    found = rest.page(session, statement, [SoftwareInstallation.id], query)
    return {"installations": found.items, "next": found.next}


@blueprint.post("/installations")
@rest.operation(
    summary="Have a release on a node; if it is there, nothing changes",
    body=NewInstallation,
    answer=NodesInstallationShown,
    status=201,
    errors=CHANGES,
)
def install(body: NewInstallation) -> rest.Reply:
    """Have a release on a node."""
    wanted = InstallationState.AVAILABLE
    installed = service.supply(
        context().session, context().clock, node=body.node, url=body.url, state=wanted
    )
    shown = NodesInstallationShown.model_validate(installed)
    return rest.Reply(shown, location=f"/v1/installations/{shown.reference}")


@blueprint.get("/installations/<reference>")
@rest.operation(
    summary="Show a release on a node", answer=NodesInstallationShown, errors=(NotFound,)
)
def show(reference: str) -> NodesInstallationShown:
    """Show a release on a node."""
    found = service.find_installation(context().session, reference)
    return NodesInstallationShown.model_validate(found)


@blueprint.delete("/installations/<reference>")
@rest.operation(
    summary="Have a release removed from its node, if no instance there uses it",
    answer=None,
    errors=CHANGES,
)
def give_up(reference: str) -> None:
    """Have a release removed from its node; it is gone once the node says so."""
    found = service.find_installation(context().session, reference)
    service.supply(
        context().session,
        context().clock,
        node=found.node.reference,
        url=found.url,
        state=InstallationState.DESTROYED,
    )
