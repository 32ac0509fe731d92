"""Nodes over HTTP."""

from typing import Any

from flask import Blueprint
from sqlalchemy import select

from slapos.master import rest
from slapos.master.http import context
from slapos.master.nodes import service
from slapos.master.nodes.model import ComputeNode, ComputePartition
from slapos.protocol.errors import NotFound

blueprint = Blueprint("nodes", __name__, url_prefix="/v1/nodes")


class NodeShown(rest.Answer):
    """A node."""

    reference: str
    title: str
    address: str | None
    formatted_at: rest.Time | None
    contacted_at: rest.Time | None


class AddressShown(rest.Answer):
    """An IP address of a partition."""

    interface: str
    address: str
    netmask: str | None
    gateway: str | None
    network: str | None


class PartitionShown(rest.Answer):
    """A partition of a node."""

    reference: str
    state: str
    missing_since: rest.Time | None
    addresses: list[AddressShown]
    capabilities: list[str]


class NodesShown(rest.Paged):
    """Nodes, by reference."""

    nodes: list[NodeShown]


class PartitionsShown(rest.Answer):
    """The partitions of a node."""

    partitions: list[PartitionShown]


@blueprint.get("")
@rest.operation(summary="Show nodes, by reference", query=rest.PagedQuery, answer=NodesShown)
def show_all(query: rest.PagedQuery) -> NodesShown:
    """Show nodes."""
    keys = [ComputeNode.reference]
    found = rest.page(context().session, select(ComputeNode), keys, query)
    return NodesShown(nodes=[NodeShown.model_validate(each) for each in found], next=found.next)


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
        "addresses": partition.addresses,
        "capabilities": [capability.name for capability in partition.capabilities],
    }
