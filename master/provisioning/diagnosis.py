"""Why no partition was found: the first condition that nothing fulfils, and what would help."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, exists, select
from sqlalchemy.orm import Session

from slapos.master.catalog.model import SupplyNode
from slapos.master.nodes.model import (
    AllocationScope,
    ComputeNode,
    ComputePartition,
    PartitionCapability,
)
from slapos.master.provisioning import placement
from slapos.master.provisioning.filters import Filters
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.offers import Offer
from slapos.master.provisioning.placement import Shape
from slapos.master.provisioning.waiting import Refusal, Why

Search = tuple[Shape, dict[str, Any]]


def why_no_partition(
    session: Session, instance: SoftwareInstance, filters: Filters, offers: Sequence[Offer]
) -> Refusal:
    """Return why none of the supplies has a partition for an instance."""
    searches = [
        (
            placement.shape_of(filters, offer),
            placement.values_of(instance, filters, offer),
        )
        for offer in offers
    ]
    for stage, (code, sentence) in _STAGES.items():
        left = [each for each in searches if _finds(session, each, stage)]
        if not left:
            closed = _closed(session, searches[0]) if stage == _OPEN else ""
            words = _words(instance, filters) | {"closed": closed}
            return Refusal(code, sentence.format_map(words))
        searches = left
    return Refusal(
        Why.NO_FREE_PARTITION,
        "others took the last partitions at the same moment; it is tried again by itself",
    )


@cache
def _statement(shape: Shape, stage: int) -> Select[Any]:
    conditions: list[ColumnElement[bool]] = []
    if stage >= _OPEN:
        conditions.append(placement.is_open())
    if stage >= _NETWORK and shape.unique_by_network:
        conditions.append(placement.in_new_network())
    if stage >= _INSTALLED and shape.installed:
        conditions.append(placement.is_installed())
    if stage >= _CAPACITY:
        conditions.append(placement.has_capacity())
    nodes = placement.on_nodes(
        Shape(False, False, False, False, False, 0) if stage < _MATCHING else shape, *conditions
    )
    if stage >= _CAPABLE and shape.capability:
        nodes = nodes.where(
            exists().where(
                ComputePartition.node_id == ComputeNode.id,
                PartitionCapability.partition_id == ComputePartition.id,
                PartitionCapability.name == bindparam("capability"),
            )
        )
    if stage >= _FREE:
        nodes = placement.with_partitions(nodes, shape)
    return nodes.limit(1)


def _finds(session: Session, search: Search, stage: int) -> bool:
    shape, values = search
    return session.execute(_statement(shape, stage), values).first() is not None


def _words(instance: SoftwareInstance, filters: Filters) -> dict[str, str]:
    """Return what the sentences name of an order."""
    asked = [
        *([f"computer_guid {filters.node!r}"] if filters.node else []),
        *([f"network_guid {filters.network!r}"] if filters.network else []),
        *(f"{name} {value!r}" for name, value in filters.categories),
        *(["no remote node, as another master ordered it"] if filters.here_only else []),
    ]
    capability = repr(filters.capability)
    return {
        "url": instance.software_url,
        "asked": ", ".join(asked),
        "capability": capability,
        "capable": f" with the capability {capability}" if filters.capability else "",
    }


def _closed(session: Session, search: Search) -> str:
    """Name a node that would be right, and say why it is not."""
    shape, values = search
    first = (
        select(ComputeNode.reference, ComputeNode.allocation_scope)
        .select_from(SupplyNode)
        .join(ComputeNode, ComputeNode.id == SupplyNode.node_id)
        .where(placement.of_supply(), *placement.as_filtered(shape))
        .limit(1)
    )
    reference, scope = session.execute(first, values).one()
    return f"{reference} is {'not heard of' if scope == AllocationScope.OPEN else scope}"


#: The conditions, one after the other: each with the reason when no node fulfils it.
_ANY, _MATCHING, _CAPABLE, _OPEN, _NETWORK, _INSTALLED, _FREE, _CAPACITY = range(8)
_STAGES = {
    _ANY: (
        Why.NO_SUPPLY,
        "the supplies that allow {url} name no node; a production manager of the project can add "
        "nodes to one",
    ),
    _MATCHING: (
        Why.NO_NODE_MATCHES,
        "none of the nodes that may have it is as the filters ask: {asked}; request it again with "
        "other filters, or have a production manager supply such a node",
    ),
    _CAPABLE: (
        Why.NO_NODE_MATCHES,
        "no partition of the nodes that may have it has the capability {capability}; request it "
        "again with another one, or have a node formatted with it",
    ),
    _OPEN: (
        Why.NODE_CLOSED,
        "every node that may have it is closed to new instances or lost, {closed}; it is placed "
        "as soon as one is open and heard of",
    ),
    _NETWORK: (
        Why.NETWORK_TAKEN,
        "with mode=unique_by_network each instance of a tree is in another network, and the tree "
        "is in all that could be; supply nodes in another network, or request it without mode",
    ),
    _INSTALLED: (
        Why.NOT_INSTALLED,
        "{url} is installed on none of the nodes that may have it, and the supply does not "
        "install by need; a production manager can install it on one",
    ),
    _FREE: (
        Why.NO_FREE_PARTITION,
        "all partitions{capable} of the nodes that may have it are busy or kept for others; it is "
        "placed as soon as one is free or a node is added",
    ),
    _CAPACITY: (
        Why.NO_CAPACITY,
        "the nodes that have a free partition for it bear no more by their capacity; it is placed "
        "as soon as one does",
    ),
}
