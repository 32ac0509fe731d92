"""The change feed without the waiting, which is the web server's (`feed/waiting.py`)."""

from typing import Any

from flask import Blueprint, current_app, jsonify, request
from flask.typing import ResponseReturnValue
from sqlalchemy import bindparam, select

from slapos.master.compression import compressed
from slapos.master.http import context
from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import ComputeNode, NodeExchange
from slapos.master.slap.node_view import NODE_VIEWS, NodeViews
from slapos.protocol.errors import InvalidRequest

blueprint = Blueprint("feed", __name__, url_prefix="/v1/nodes")

#: How long a node waits at most, in seconds.
LONGEST_WAIT = 60.0

CHANGE = (
    select(NodeExchange.change)
    .join(ComputeNode, ComputeNode.id == NodeExchange.node_id)
    .where(ComputeNode.reference == bindparam("reference"))
)


@blueprint.get("/<path:reference>/changes")
def show_changes(reference: str) -> ResponseReturnValue:
    """Tell whether a node has something to do since it got a token; with it, what, if it asks so.

    Any other token than the latest counts as a change: also one that is none.
    """
    _check_wait()
    session = context().session
    token = session.scalar(CHANGE, {"reference": reference})
    if token is None:
        nodes.find_node(session, reference)
        raise AssertionError("a node appeared in a transaction that reads one moment")
    changed = request.args.get("since") != token
    told: dict[str, Any] = {"token": token, "changed": changed}
    if changed and request.args.get("information") == "1":
        views: NodeViews = current_app.extensions[NODE_VIEWS]
        document = views.document(session, reference)
        told |= {"information": document.content.decode(), "etag": document.etag}
    return compressed(jsonify(told))


def _check_wait() -> None:
    wait = request.args.get("wait", "")
    try:
        usable = float(wait or 0) >= 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidRequest(f"wait is {wait[:60]!r}, which is no number of seconds")
