"""Remote nodes over HTTP."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, cast

from flask import Blueprint
from pydantic import Field

from slapos.master import rest
from slapos.master.http import context
from slapos.master.nodes import operate
from slapos.master.nodes.model import AllocationScope, ComputeNode
from slapos.master.nodes.shapes import LEFT_OUT, Text
from slapos.master.remote import service, talks
from slapos.master.remote.asking import Credentials, Reach
from slapos.master.remote.service import RemoteChange
from slapos.master.text import URL_LENGTH
from slapos.protocol.errors import Conflict, Forbidden, NotFound

blueprint = Blueprint("remote_nodes", __name__, url_prefix="/v1/remote-nodes")

CHANGES = (NotFound, Forbidden, Conflict)
#: What says whom we are there: a token, or both of the others.
CREDENTIALS = ("token", "certificate", "key")

Url = Annotated[
    str, Field(min_length=1, max_length=URL_LENGTH, description="Where the other master is.")
]
There = Annotated[
    str,
    Field(
        max_length=200, description='A project there, such as PROJ-7; "": the only one of the user.'
    ),
]
Filters = Annotated[
    dict[str, str], Field(description="Sent with each order there, such as computer_guid.")
]
Authority = Annotated[
    str, Field(description='PEM: whom the other master is checked by; "": as the system does.')
]
Partitions = Annotated[int, Field(ge=0, le=service.MOST_PARTITIONS)]


class _Shown(rest.Body):
    """By what a person of the other master is known; nobody is told these again."""

    token: Annotated[str, Field(max_length=service.TOKEN_LENGTH)] = ""
    certificate: Annotated[
        str, Field(max_length=service.PEM_LENGTH, description="PEM, with its chain.")
    ] = ""
    key: Annotated[str, Field(max_length=service.PEM_LENGTH, description="PEM.")] = ""


class NewRemoteNode(_Shown):
    """A remote node that is wanted: with a token, or with a certificate and its key."""

    project: Annotated[str, Field(max_length=40, description="Such as PROJ-1.")]
    title: Text
    url: Url
    project_there: There = ""
    filters: Filters = Field(default_factory=dict)
    authority: Authority = ""
    partitions: Partitions = 10


class RemoteNodeChanged(_Shown):
    """What is to be changed of a remote node; what is left out stays."""

    title: Text = LEFT_OUT
    url: Url = LEFT_OUT
    project_there: There = LEFT_OUT
    filters: Filters = LEFT_OUT
    authority: Authority = LEFT_OUT
    partitions: Partitions = LEFT_OUT
    allocation_scope: AllocationScope = LEFT_OUT
    capacity: Annotated[
        int | None,
        Field(ge=0, le=operate.LARGEST_CAPACITY, description="null: without a bound."),
    ] = LEFT_OUT
    network: Annotated[str | None, Field(description="Such as NET-1; null for none.")] = LEFT_OUT
    categories: Annotated[dict[str, Text], Field(description="All that it is to have.")] = LEFT_OUT


class RemoteNodeShown(rest.Answer):
    """A remote node; its credentials are not told.

    `error` is why the other master gave no answer last, `failing_since` since when.
    """

    reference: str
    title: str
    project: str
    url: str
    project_there: str
    filters: dict[str, Any]
    authority: str
    allocation_scope: str
    capacity: int | None
    network: str | None
    categories: dict[str, str]
    created_at: rest.Time
    credentials_until: Annotated[
        rest.Time | None, Field(description="When the certificate ends; null for a token.")
    ]
    answered_at: rest.Time | None
    failing_since: rest.Time | None
    error: str


class OneRemoteNodeShown(RemoteNodeShown):
    """A remote node, and how many of its partitions are free and busy."""

    free: int
    busy: int


class RemoteNodesShown(rest.Paged):
    """Remote nodes, the oldest first."""

    remote_nodes: list[RemoteNodeShown]


class RemoteNodesQuery(rest.PagedQuery):
    """Which remote nodes are looked for."""

    project: Annotated[str | None, Field(description="Such as PROJ-1.")] = None


@blueprint.get("")
@rest.operation(
    summary="Show remote nodes, the oldest first", query=RemoteNodesQuery, answer=RemoteNodesShown
)
def show_all(query: RemoteNodesQuery) -> dict[str, Any]:
    """Show remote nodes."""
    session = context().session
    statement = service.matching(session, query.project).options(*service.WHOLE)
    found = rest.page(session, statement, [ComputeNode.id], query)
    return {"remote_nodes": [render(each) for each in found], "next": found.next}


@blueprint.post("")
@rest.operation(
    summary="Have another master take instances of a project",
    body=NewRemoteNode,
    answer=OneRemoteNodeShown,
    status=201,
    errors=CHANGES,
)
def create(body: NewRemoteNode) -> rest.Reply:
    """Make a remote node."""
    told = body.model_dump(exclude={"project", "title"})
    node = service.create(
        context().session,
        context().clock,
        partial(talks.seal, context().settings),
        _reach(),
        project=body.project,
        title=body.title,
        wanted=_wanted(told),
    )
    return rest.Reply(_whole(node), location=f"/v1/remote-nodes/{node.reference}")


@blueprint.get("/<reference>")
@rest.operation(summary="Show a remote node", answer=OneRemoteNodeShown, errors=(NotFound,))
def show(reference: str) -> dict[str, Any]:
    """Show a remote node."""
    return _whole(service.find(context().session, reference))


@blueprint.patch("/<reference>")
@rest.operation(
    summary="Change a remote node; what is behind it is asked for again",
    body=RemoteNodeChanged,
    answer=OneRemoteNodeShown,
    errors=CHANGES,
)
def change(reference: str, body: RemoteNodeChanged) -> dict[str, Any]:
    """Change a remote node."""
    told = body.model_dump(exclude_unset=True)
    of_node = {name: told.pop(name) for name in _OF_NODE if name in told}
    node = service.change(
        context().session,
        context().clock,
        partial(talks.seal, context().settings),
        _reach(),
        reference,
        _wanted(told),
        cast("operate.NodeChange", of_node),
    )
    return _whole(node)


@blueprint.delete("/<reference>")
@rest.operation(summary="Remove a remote node with nothing behind it", answer=None, errors=CHANGES)
def remove(reference: str) -> None:
    """Remove a remote node."""
    service.remove(context().session, reference)


def render(node: ComputeNode) -> dict[str, Any]:
    """Return what is told of a remote node, as the fields of RemoteNodeShown."""
    remote = node.remote
    assert remote is not None
    return {
        **{name: getattr(node, name) for name in _NODE_FIELDS},
        **{name: getattr(remote, name) for name in _REMOTE_FIELDS},
        "project": node.project.reference,
        "project_there": remote.project_reference,
        "network": node.network.reference if node.network is not None else None,
        "categories": {each.name: each.value for each in node.categories},
    }


_OF_NODE = ("title", "allocation_scope", "capacity", "network", "categories")
_NODE_FIELDS = ("reference", "title", "allocation_scope", "capacity", "created_at")
_REMOTE_FIELDS = (
    "url",
    "filters",
    "authority",
    "credentials_until",
    "answered_at",
    "failing_since",
    "error",
)


def _whole(node: ComputeNode) -> dict[str, Any]:
    return {**render(node), **service.count_partitions(context().session, node)}


def _wanted(told: Mapping[str, Any]) -> RemoteChange:
    shown = {name: told[name] for name in CREDENTIALS if name in told}
    wanted = {name: value for name, value in told.items() if name not in CREDENTIALS}
    if shown:
        wanted["credentials"] = Credentials(**shown)
    return cast("RemoteChange", wanted)


def _reach() -> Reach:
    return Reach(context().settings.remote_networks)
