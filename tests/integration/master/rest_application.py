"""A small application with views of REST v1, to try what every such view has in common."""

from typing import Annotated, Any

from flask import Blueprint, Flask, request
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos.master import http, rest
from slapos.master.database import Database
from slapos.master.identity.caller import Caller, CallerKind
from slapos.master.nodes import service as nodes
from slapos.master.nodes.exchange import Announcer
from slapos.master.nodes.model import ComputeNode
from slapos.master.numbering import next_number
from slapos.master.provisioning.policy import LocalPolicy
from slapos.master.rest import views as description
from slapos.master.settings import Settings
from slapos.protocol.errors import Conflict, NotFound
from slapos.system.clock import Clock
from tests.fakes import FakeIdentifiers


class NewNode(rest.Body):
    """What a client says of a new node."""

    title: Annotated[str, Field(min_length=1, max_length=20)]
    partitions: Annotated[int, Field(ge=0)] = 0
    labels: Annotated[list[str], Field(default_factory=list)]


class NodesQuery(rest.PagedQuery):
    """Filters."""

    title: str | None = None
    label: list[str] | None = None


class Shown(rest.Answer):
    """A node."""

    reference: str
    title: str
    created_at: rest.Time


class Made(rest.Answer):
    """A secret that is told once."""

    token: str


class ListShown(rest.Paged):
    """Nodes."""

    nodes: list[Shown]


def _blueprint() -> Blueprint:
    blueprint = Blueprint("tried", __name__, url_prefix="/v1/tried")

    @blueprint.post("")
    @rest.operation(
        summary="Make a node", body=NewNode, answer=Shown, status=201, errors=(Conflict,)
    )
    def make(body: NewNode) -> rest.Reply:
        node = nodes.ensure_node(http.context().session, http.context().clock, body.title)
        return rest.Reply(Shown.model_validate(node), location=f"/v1/tried/{node.reference}")

    @blueprint.post("/again")
    @rest.operation(summary="Make another node each time", body=NewNode, answer=Made, status=201)
    def make_another(body: NewNode) -> Made:
        session = http.context().session
        name = f"{body.title}-{next_number(session)}"
        nodes.ensure_node(session, http.context().clock, name)
        if body.title == "refused":
            raise Conflict("it is refused after all")
        return Made(token=f"5ecret-{name}")

    @blueprint.get("")
    @rest.operation(summary="Show nodes", query=NodesQuery, answer=ListShown)
    def show_all(query: NodesQuery) -> dict[str, Any]:
        statement = select(ComputeNode)
        if query.title is not None:
            statement = statement.where(ComputeNode.title == query.title)
        keys = [ComputeNode.created_at, ComputeNode.id]
        found = rest.page(http.context().session, statement, keys, query, descending=True)
        return {"nodes": found.items, "next": found.next}

    @blueprint.get("/<reference>")
    @rest.operation(summary="Show a node", answer=Shown, errors=(NotFound,))
    def show(reference: str) -> Shown:
        return Shown.model_validate(nodes.find_node(http.context().session, reference))

    @blueprint.delete("/<reference>")
    @rest.operation(summary="Remove a node", answer=None, errors=(NotFound,), matches=True)
    def remove(reference: str) -> None:
        session = http.context().session
        node = nodes.find_node(session, reference, lock=True)
        rest.check_match(Shown.model_validate(node))
        session.delete(node)

    return blueprint


def by_header(_session: Session, _clock: Clock) -> Caller:
    """Say who asks by a header with a name."""
    return Caller(kind=CallerKind.LOCAL, name=request.headers.get("X-Test-Caller", "P-1"))


def rest_application(database: Database, clock: Clock, settings: Settings) -> Flask:
    """Return the application."""
    app = Flask(__name__, static_folder=None)
    app.register_blueprint(_blueprint())
    app.register_blueprint(description.blueprint)
    parts = http.Assembly(
        database=database,
        clock=clock,
        identifiers=FakeIdentifiers(),
        policy=LocalPolicy("computer"),
        settings=settings,
        announcer=Announcer(),
        authenticate=by_header,
    )
    http.init_app(app, parts)
    return app
