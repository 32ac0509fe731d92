"""Nodes over HTTP."""

from typing import Any

from flask import Blueprint

from slapos.master.http import context
from slapos.master.nodes import service
from slapos.master.nodes.model import ComputeNode, ComputePartition, PartitionAddress

blueprint = Blueprint("nodes", __name__, url_prefix="/v1/nodes")


@blueprint.get("")
def show_all() -> dict[str, Any]:
    """Show every node."""
    return {"nodes": [render_node(node) for node in service.nodes(context().session)]}


@blueprint.get("/<path:reference>/partitions")
def show_partitions(reference: str) -> dict[str, Any]:
    """Show a node's partitions."""
    node = service.find_node(context().session, reference)
    partitions = service.partitions(context().session, node.id)
    return {"partitions": [render_partition(partition) for partition in partitions]}


def render_node(node: ComputeNode) -> dict[str, Any]:
    """Return what a client sees of a node."""
    return {
        "reference": node.reference,
        "title": node.title,
        "address": node.address,
        "formatted_at": node.formatted_at.isoformat() if node.formatted_at else None,
        "contacted_at": node.contacted_at.isoformat() if node.contacted_at else None,
    }


def render_partition(partition: ComputePartition) -> dict[str, Any]:
    """Return what a client sees of a partition."""
    missing = partition.missing_since
    return {
        "reference": partition.reference,
        "state": partition.state,
        "missing_since": missing.isoformat() if missing else None,
        "addresses": [_address(address) for address in partition.addresses],
        "capabilities": [capability.name for capability in partition.capabilities],
    }


def _address(address: PartitionAddress) -> dict[str, Any]:
    return {
        "interface": address.interface,
        "address": address.address,
        "netmask": address.netmask,
        "gateway": address.gateway,
        "network": address.network,
    }
