"""What operators do with nodes: look for them, say what they are like, take them away."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import Session

from slapos.master.identity.model import Project
from slapos.master.identity.rights import Action, require, visible
from slapos.master.identity.subject import Kind
from slapos.master.nodes import service
from slapos.master.nodes.model import (
    CATEGORIES,
    REFERENCE_LENGTH,
    SHARED_REMOTE,
    AllocationScope,
    ComputeNode,
    ComputePartition,
    ComputerNetwork,
    NodeCategory,
    PartitionState,
)
from slapos.master.nodes.networks import find_network
from slapos.master.tasks.task import sense
from slapos.master.text import checked_text
from slapos.protocol.errors import Conflict, InvalidRequest

#: The largest capacity: what PostgreSQL's integers hold.
LARGEST_CAPACITY = 2**31 - 1

#: The task that takes nodes that are gone out of supplies.
TIDY_SUPPLIES = "tidy_supplies"

LOCKED_PARTITIONS = (
    select(ComputePartition)
    .where(ComputePartition.node_id == bindparam("node_id"))
    .order_by(ComputePartition.id)
    .with_for_update(of=ComputePartition)
    .execution_options(populate_existing=True)
)
COUNT_PARTITIONS = (
    select(ComputePartition.state, func.count())
    .where(ComputePartition.node_id == bindparam("node_id"))
    .group_by(ComputePartition.state)
)
LEFT_INSTANCES = (
    select(ComputePartition.reference, ComputePartition.left_instance, ComputePartition.left_title)
    .where(
        ComputePartition.node_id == bindparam("node_id"), ComputePartition.left_since.is_not(None)
    )
    .order_by(ComputePartition.id)
)
CLOSED = (
    select(ComputeNode.reference)
    .where(
        ComputeNode.allocation_scope == AllocationScope.FOREVER,
        ComputeNode.invalidated_at.is_(None),
        ~ComputeNode.is_remote,
        ComputeNode.reference > bindparam("behind"),
    )
    .order_by(ComputeNode.reference)
    .limit(bindparam("limit"))
)


@dataclass(frozen=True, kw_only=True)
class NodeFilter:
    """Which nodes are looked for; what is None or empty excludes none.

    `title` is a part of it, in any case; `project` and `network` are references.
    """

    title: str | None = None
    scope: AllocationScope | None = None
    project: str | None = None
    network: str | None = None
    categories: Mapping[str, str] = field(default_factory=dict)
    #: Whether those that are gone for good are meant, and no others.
    invalidated: bool = False


class NodeChange(TypedDict, total=False):
    """What is to be changed of a node; `network` is a reference, `categories` are all it has."""

    title: str
    allocation_scope: AllocationScope
    capacity: int | None
    network: str | None
    categories: Mapping[str, str]


def matching(session: Session, wanted: NodeFilter) -> Select[ComputeNode]:
    """Return a SELECT of the nodes that are looked for and that the caller may see."""
    statement = select(ComputeNode)
    statement = visible(
        session, statement, Kind.NODE, project=ComputeNode.project_id, node=ComputeNode.id
    )
    if wanted.title:
        statement = statement.where(ComputeNode.title.icontains(wanted.title, autoescape=True))
    if wanted.scope is not None:
        statement = statement.where(ComputeNode.allocation_scope == wanted.scope)
    if wanted.project is not None:
        statement = statement.join(ComputeNode.project).where(Project.reference == wanted.project)
    if wanted.network is not None:
        statement = statement.join(ComputeNode.network).where(
            ComputerNetwork.reference == wanted.network
        )
    for name, value in wanted.categories.items():
        statement = statement.where(
            ComputeNode.categories.any(
                (NodeCategory.name == checked_category(name)) & (NodeCategory.value == value)
            )
        )
    gone = ComputeNode.invalidated_at
    statement = statement.where(~ComputeNode.is_remote)
    return statement.where(gone.is_not(None) if wanted.invalidated else gone.is_(None))


def change(session: Session, reference: str, wanted: NodeChange) -> ComputeNode:
    """Change what an operator says of a node; who waits for a place may have one there then."""
    node = service.find_node(session, reference, lock=True)
    require(session, Action.CHANGE, node)
    node.check_valid()
    if "title" in wanted and wanted["title"] != node.title:
        service.check_title(session, node.project_id, wanted["title"])
        node.title = wanted["title"]
    if "capacity" in wanted:
        node.capacity = _checked_capacity(wanted["capacity"])
    if "allocation_scope" in wanted:
        node.allocation_scope = wanted["allocation_scope"]
    if "network" in wanted:
        node.network_id = _network_id(session, node, wanted["network"])
    if "categories" in wanted:
        _set_categories(node, wanted["categories"])
    places = wanted.keys() - {"title"}
    if places and node.allocation_scope == AllocationScope.OPEN:
        service.may_take_more(session, node)
    if places and node.allocation_scope == AllocationScope.FOREVER:
        sense(session, service.INVALIDATE_CLOSED_NODES, node.reference)
    session.flush()
    session.refresh(node, ["network"])
    return node


def remove(session: Session, reference: str) -> None:
    """Remove a node with all that is known of it, or raise Conflict when it holds instances."""
    node = service.find_node(session, reference, lock=True)
    require(session, Action.DESTROY, node)
    if node.is_remote:
        raise Conflict(f"{node.reference} is a remote node: it is removed as one")
    busy = count_busy(session, node)
    if busy:
        raise Conflict(
            f"the node {node.reference} holds {busy} instances; destroy them, or have them go "
            f"elsewhere, and remove the node when it is empty. Closed with the scope "
            f"{AllocationScope.FOREVER}, it goes by itself then"
        )
    session.delete(node)
    session.flush()


def invalidate_if_empty(session: Session, reference: str, now: datetime) -> ComputeNode | None:
    """Take a node that is closed for ever out of use, if nothing is on it; return it if so."""
    node = session.scalar(service.LOCKED_NODE, {"reference": reference})
    if node is None or node.invalidated_at is not None or node.is_remote:
        return None
    if node.allocation_scope != AllocationScope.FOREVER or count_busy(session, node):
        return None
    node.invalidate(now)
    session.flush()
    sense(session, TIDY_SUPPLIES)
    return node


def count_partitions(session: Session, node_id: int) -> Mapping[str, int]:
    """Return how many partitions of a node are in which state."""
    rows = session.execute(COUNT_PARTITIONS, {"node_id": node_id})
    return dict.fromkeys(PartitionState, 0) | {str(state): count for state, count in rows}


def left_instances(session: Session, node_id: int) -> Mapping[str, str]:
    """Return by partition the instances that a node has found, and that this master misses."""
    rows = session.execute(LEFT_INSTANCES, {"node_id": node_id})
    return {partition: f"{instance} ({title})" for partition, instance, title in rows}


def count_busy(session: Session, node: ComputeNode) -> int:
    """Return how many of a node's partitions are busy, and keep others from taking one."""
    found = session.scalars(LOCKED_PARTITIONS, {"node_id": node.id}).all()
    return sum(
        partition.state != PartitionState.FREE and partition.reference != SHARED_REMOTE
        for partition in found
    )


def checked_category(name: str) -> str:
    """Return the name of a category, or raise InvalidRequest when there is no such."""
    if name not in CATEGORIES:
        raise InvalidRequest(
            f"there is no category {name[:60]!r}; there are: {', '.join(sorted(CATEGORIES))}"
        )
    return name


def _checked_capacity(capacity: int | None) -> int | None:
    if capacity is not None and not 0 <= capacity <= LARGEST_CAPACITY:
        raise InvalidRequest(
            f"the capacity of a node is {capacity}; it can be 0 to {LARGEST_CAPACITY}, or none"
        )
    return capacity


def _network_id(session: Session, node: ComputeNode, reference: str | None) -> int | None:
    if reference is None:
        return None
    network = find_network(session, reference)
    if network.project_id != node.project_id:
        raise InvalidRequest(
            f"the network {network.reference} is of another project than {node.reference}"
        )
    return network.id


def _set_categories(node: ComputeNode, wanted: Mapping[str, str]) -> None:
    for name, value in wanted.items():
        checked_text(f"the category {checked_category(name)}", value, REFERENCE_LENGTH)
    present = {category.name: category for category in node.categories}
    for name, category in present.items():
        if name not in wanted:
            node.categories.remove(category)
        else:
            category.value = wanted[name]
    for name in sorted(wanted.keys() - present.keys()):
        node.categories.append(NodeCategory(name=name, value=wanted[name]))
