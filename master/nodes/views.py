"""Nodes over HTTP."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, cast

from flask import Blueprint
from pydantic import AliasChoices, BeforeValidator, Field
from sqlalchemy.orm import selectinload

from slapos.master import rest
from slapos.master.http import context
from slapos.master.nodes import operate, service
from slapos.master.nodes.contact import ContactStatus, contact_status
from slapos.master.nodes.model import (
    AllocationScope,
    ComputeNode,
    ComputePartition,
    NodeExchange,
)
from slapos.master.nodes.shapes import LEFT_OUT, Reference, Text
from slapos.protocol.errors import Conflict, Forbidden, InvalidFields, NotFound

blueprint = Blueprint("nodes", __name__, url_prefix="/v1/nodes")


def _as_mapping(categories: object) -> object:
    if isinstance(categories, list):
        return {category.name: category.value for category in categories}
    return categories


def _as_status(exchange: object) -> object:
    if not isinstance(exchange, NodeExchange):
        return exchange
    now, lost_after = context().clock.now(), timedelta(seconds=context().settings.node_lost_after)
    return contact_status(exchange.contacted_at, now, lost_after, waits=exchange.waits)


class NodeShown(rest.Answer):
    """A node; `os_type`, `public_address` and `slapos_version` are what it says of itself."""

    reference: str
    title: str
    project: Reference
    allocation_scope: str
    capacity: int | None
    network: Reference | None
    categories: Annotated[dict[str, str], BeforeValidator(_as_mapping)]
    address: str | None
    os_type: str | None
    public_address: str | None
    slapos_version: str | None
    created_at: rest.Time
    formatted_at: rest.Time | None
    contacted_at: rest.Time | None
    status: Annotated[
        ContactStatus | None,
        BeforeValidator(_as_status),
        Field(
            validation_alias=AliasChoices("status", "exchange"),
            description="Whether it is there; null: it never was.",
        ),
    ]
    invalidated_at: rest.Time | None


class NodesQuery(rest.PagedQuery):
    """Which nodes are looked for."""

    title: Annotated[str | None, Field(description="A part of the title, in any case.")] = None
    scope: AllocationScope | None = None
    project: Annotated[str | None, Field(description="Such as PROJ-1.")] = None
    network: Annotated[str | None, Field(description="Such as NET-1.")] = None
    category: Annotated[
        list[str] | None,
        Field(description="Such as region=eu; several times for several, all of which it has."),
    ] = None
    invalidated: Annotated[
        bool, Field(description="Those that are gone for good, instead of the others.")
    ] = False


class NodeChanged(rest.Body):
    """What is to be changed of a node; what is left out stays."""

    title: Text = LEFT_OUT
    allocation_scope: AllocationScope = LEFT_OUT
    capacity: Annotated[
        int | None,
        Field(ge=0, le=operate.LARGEST_CAPACITY, description="null: without a bound."),
    ] = LEFT_OUT
    network: Annotated[str | None, Field(description="Such as NET-1; null for none.")] = LEFT_OUT
    categories: Annotated[dict[str, Text], Field(description="All that it is to have.")] = LEFT_OUT


class AddressShown(rest.Answer):
    """An IP address of a partition."""

    interface: str
    address: str
    netmask: str | None
    gateway: str | None
    network: str | None


class LeftShown(rest.Answer):
    """An instance that a node has found in a partition, and that this master does not know."""

    instance: str
    title: str
    since: rest.Time


class PartitionShown(rest.Answer):
    """A partition of a node."""

    reference: str
    state: str
    missing_since: rest.Time | None
    left: LeftShown | None
    addresses: list[AddressShown]
    capabilities: list[str]


class NodesShown(rest.Paged):
    """Nodes, by reference."""

    nodes: list[NodeShown]


class PartitionsShown(rest.Answer):
    """The partitions of a node."""

    partitions: list[PartitionShown]


@blueprint.get("")
@rest.operation(summary="Show nodes, by reference", query=NodesQuery, answer=NodesShown)
def show_all(query: NodesQuery) -> dict[str, Any]:
    """Show nodes."""
    wanted = operate.NodeFilter(
        title=query.title,
        scope=query.scope,
        project=query.project,
        network=query.network,
        categories=_read_categories(query.category or ()),
        invalidated=query.invalidated,
    )
    statement = operate.matching(context().session, wanted).options(
        selectinload(ComputeNode.project),
        selectinload(ComputeNode.network),
        selectinload(ComputeNode.categories),
    )
    found = rest.page(context().session, statement, [ComputeNode.reference], query)
    return {"nodes": found.items, "next": found.next}


@blueprint.patch("/<path:reference>")
@rest.operation(
    summary="Change what an operator says of a node",
    body=NodeChanged,
    answer=NodeShown,
    errors=(NotFound, Forbidden, Conflict),
)
def change(reference: str, body: NodeChanged) -> NodeShown:
    """Change what an operator says of a node."""
    wanted = cast("operate.NodeChange", body.model_dump(exclude_unset=True))
    return NodeShown.model_validate(operate.change(context().session, reference, wanted))


@blueprint.delete("/<path:reference>")
@rest.operation(
    summary="Remove an empty node, with all that is known of it",
    answer=None,
    errors=(NotFound, Forbidden, Conflict),
)
def remove(reference: str) -> None:
    """Remove an empty node."""
    operate.remove(context().session, reference)


@blueprint.get("/<path:reference>/partitions")
@rest.operation(summary="Show a node's partitions", answer=PartitionsShown, errors=(NotFound,))
def show_partitions(reference: str) -> dict[str, Any]:
    """Show a node's partitions."""
    node = service.find_node(context().session, reference)
    partitions = service.partitions(context().session, node.id)
    return {"partitions": [render_partition(partition) for partition in partitions]}


def render_partition(partition: ComputePartition) -> dict[str, Any]:
    """Return what a client sees of a partition, as the fields of PartitionShown."""
    return {
        "reference": partition.reference,
        "state": partition.state,
        "missing_since": partition.missing_since,
        "left": _left_in(partition),
        "addresses": partition.addresses,
        "capabilities": [capability.name for capability in partition.capabilities],
    }


def _left_in(partition: ComputePartition) -> dict[str, Any] | None:
    if not partition.left_instance:
        return None
    return {
        "instance": partition.left_instance,
        "title": partition.left_title,
        "since": partition.left_since,
    }


def _read_categories(words: Sequence[str]) -> Mapping[str, str]:
    found = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise InvalidFields(
                f"the category {word[:60]!r} has no value", {"category": "such as region=eu"}
            )
        found[name] = value
    return found
