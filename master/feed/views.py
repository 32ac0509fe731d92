"""The change feed without the waiting, which is the web server's (`feed/waiting.py`)."""

from typing import Annotated, Any

from flask import Blueprint, current_app, jsonify
from flask.typing import ResponseReturnValue
from pydantic import Field
from sqlalchemy import bindparam, select

from slapos.master import rest
from slapos.master.compression import compressed
from slapos.master.http import context
from slapos.master.identity.rights import Action, require
from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import ComputeNode, NodeExchange
from slapos.master.slap.node_view import NODE_VIEWS, NodeViews
from slapos.protocol.errors import NotFound

blueprint = Blueprint("feed", __name__, url_prefix="/v1/nodes")

#: How long a node waits at most, in seconds.
LONGEST_WAIT = 60.0

CHANGE = (
    select(NodeExchange.change)
    .join(ComputeNode, ComputeNode.id == NodeExchange.node_id)
    .where(ComputeNode.reference == bindparam("reference"))
)


class Asked(rest.Query):
    """What a node asks of the feed."""

    since: Annotated[
        str | None, Field(description="The token that it has; any other is a change.")
    ] = None
    wait: Annotated[
        float,
        Field(ge=0, description="Seconds until it is told that there is none, 60 at most."),
    ] = 0
    information: Annotated[
        str | None, Field(description="1 to be told at once what it has to do.")
    ] = None


class Changes(rest.Answer):
    """Whether there is a change; `information` is the SLAP XML of getFullComputerInformation."""

    token: str
    changed: bool
    information: str | None = None
    etag: str | None = None


@blueprint.get("/<path:reference>/changes")
@rest.operation(
    summary="Wait until a node has something to do",
    query=Asked,
    answer=Changes,
    errors=(NotFound,),
)
def show_changes(reference: str, query: Asked) -> ResponseReturnValue:
    """Tell whether a node has something to do since it got a token; with it, what, if it asks so.

    Any other token than the latest counts as a change: also one that is none.
    """
    session = context().session
    token = session.scalar(CHANGE, {"reference": reference})
    if token is None:
        nodes.find_node(session, reference)
        raise AssertionError("a node appeared in a transaction that reads one moment")
    if not context().caller.may_all:
        require(session, Action.SEE_VALUES, nodes.find_node(session, reference))
    changed = query.since != token
    told: dict[str, Any] = {"token": token, "changed": changed}
    if changed and query.information == "1":
        views: NodeViews = current_app.extensions[NODE_VIEWS]
        document = views.document(session, reference)
        told |= {"information": document.content.decode(), "etag": document.etag}
    return compressed(jsonify(told))
