"""What can be done with nodes. Nothing here knows of HTTP, and nothing here commits."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session, selectinload

from slapos.master.nodes.exchange import heard_from, touch
from slapos.master.nodes.model import (
    REFERENCE_LENGTH,
    ComputeNode,
    ComputePartition,
    NodeExchange,
    PartitionAddress,
    PartitionCapability,
    PartitionState,
)
from slapos.master.numbering import next_number
from slapos.master.text import checked_text
from slapos.protocol.errors import InvalidRequest, NotFound
from slapos.system.clock import Clock

#: How many nodes an error message names.
NAMED_NODES = 10


@dataclass(frozen=True, kw_only=True)
class Address:
    """An address as a node tells it."""

    interface: str
    address: str
    netmask: str | None = None
    gateway: str | None = None
    network: str | None = None


@dataclass(frozen=True, kw_only=True)
class PartitionFormat:
    """A partition as a node tells it."""

    reference: str
    addresses: Sequence[Address] = ()
    capabilities: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class NodeFormat:
    """What a node says it has."""

    reference: str
    partitions: Sequence[PartitionFormat]
    address: str | None = None
    netmask: str | None = None


def nodes(session: Session) -> Sequence[ComputeNode]:
    """Return every node, by reference."""
    return session.scalars(select(ComputeNode).order_by(ComputeNode.reference)).all()


NODE = select(ComputeNode).where(ComputeNode.reference == bindparam("reference"))
LOCKED_NODE = NODE.with_for_update(key_share=True, of=ComputeNode)
PARTITION = (
    select(ComputePartition)
    .join(ComputeNode)
    .where(
        ComputeNode.reference == bindparam("node"),
        ComputePartition.reference == bindparam("reference"),
    )
)


def find_node(session: Session, reference: str, *, lock: bool = False) -> ComputeNode:
    """Return a node, or raise NotFound; with `lock`, nobody else may lock it until the end."""
    node = session.scalar(LOCKED_NODE if lock else NODE, {"reference": reference})
    if node is None:
        known = session.scalars(
            select(ComputeNode.reference).order_by(ComputeNode.reference).limit(NAMED_NODES)
        ).all()
        raise NotFound(
            f"there is no node {reference!r}; known are: {', '.join(known) or 'none'}. "
            "A node makes itself known by `slapos node format`"
        )
    return node


def ensure_node(session: Session, clock: Clock, reference: str) -> ComputeNode:
    """Return a node, made if it was not there."""
    node = session.scalar(NODE, {"reference": reference})
    if node is None:
        checked_text("the reference of a node", reference, REFERENCE_LENGTH)
        node = ComputeNode(reference=reference, title=reference, created_at=clock.now())
        node.exchange = NodeExchange()
        session.add(node)
        session.flush()
        touch(session, node.id)
    return node


def create(session: Session, clock: Clock, project_id: int, title: str) -> ComputeNode:
    """Make a node of a project, with a reference of its own: COMP-n.

    Whether that may be is asked before: a node is made by whoever shows a join token for it.
    """
    checked_text("the title of a node", title, REFERENCE_LENGTH)
    node = ComputeNode(
        reference=f"COMP-{next_number(session)}",
        title=title,
        project_id=project_id,
        created_at=clock.now(),
    )
    node.exchange = NodeExchange()
    session.add(node)
    session.flush()
    touch(session, node.id)
    return node


def find_partition(session: Session, node: str, reference: str) -> ComputePartition:
    """Return a partition, or raise NotFound."""
    partition = session.scalar(PARTITION, {"node": node, "reference": reference})
    if partition is None:
        find_node(session, node)
        raise NotFound(
            f"the node {node!r} has no partition {reference!r}; "
            "`slapos node format` tells the master which ones it has"
        )
    return partition


def partitions(session: Session, node_id: int) -> Sequence[ComputePartition]:
    """Return the partitions of a node with all they have, in the order the node named them."""
    return session.scalars(
        select(ComputePartition)
        .where(ComputePartition.node_id == node_id)
        .order_by(ComputePartition.id)
        .options(
            selectinload(ComputePartition.addresses), selectinload(ComputePartition.capabilities)
        )
    ).all()


def format_node(session: Session, clock: Clock, told: NodeFormat) -> Sequence[ComputePartition]:
    """Make a node and its partitions as the node tells, changing only what is different.

    A partition that is no longer named goes when it is free. A busy one is kept, marked as missing,
    and goes as soon as it is free and still missing. Return those that have other addresses now.
    """
    _check(told)
    ensure_node(session, clock, told.reference)
    node = find_node(session, told.reference, lock=True)
    node.address, node.netmask = told.address, told.netmask
    node.formatted_at = clock.now()
    heard_from(session, node.id, clock.now())
    known = {partition.reference: partition for partition in partitions(session, node.id)}
    readdressed = []
    for wanted in told.partitions:
        partition = known.pop(wanted.reference, None)
        if partition is None:
            partition = ComputePartition(node_id=node.id, reference=wanted.reference)
            session.add(partition)
        partition.missing_since = None
        if _set_addresses(partition, wanted.addresses):
            readdressed.append(partition)
            touch(session, node.id)
        _set_capabilities(partition, wanted.capabilities)
    for partition in known.values():
        if partition.state == PartitionState.FREE:
            session.delete(partition)
        elif partition.missing_since is None:
            partition.missing_since = clock.now()
    session.flush()
    return readdressed


def free_partition(session: Session, partition: ComputePartition) -> None:
    """Give a partition back; one that its node no longer names goes away."""
    partition.release()
    if partition.missing_since is not None:
        session.delete(partition)


def _check(told: NodeFormat) -> None:
    names = [checked_text("a partition", p.reference, REFERENCE_LENGTH) for p in told.partitions]
    if len(set(names)) != len(names):
        raise InvalidRequest("a partition is named twice")
    for partition in told.partitions:
        for address in partition.addresses:
            for value in (address.interface, address.address, address.netmask):
                checked_text("an address", value or "", REFERENCE_LENGTH, empty=True)
        for name in partition.capabilities:
            checked_text("a capability", name, REFERENCE_LENGTH)


def _set_addresses(partition: ComputePartition, wanted: Sequence[Address]) -> bool:
    present = [
        Address(
            interface=a.interface,
            address=a.address,
            netmask=a.netmask,
            gateway=a.gateway,
            network=a.network,
        )
        for a in partition.addresses
    ]
    if present == list(wanted):
        return False
    for position, address in enumerate(wanted):
        if position >= len(present):
            partition.addresses.append(PartitionAddress(position=position, **vars(address)))
        elif present[position] != address:
            for name, value in vars(address).items():
                setattr(partition.addresses[position], name, value)
    del partition.addresses[len(wanted) :]
    return True


def _set_capabilities(partition: ComputePartition, wanted: Sequence[str]) -> None:
    present = {capability.name: capability for capability in partition.capabilities}
    for name in sorted(set(wanted) - present.keys()):
        partition.capabilities.append(PartitionCapability(name=name))
    for name in present.keys() - set(wanted):
        partition.capabilities.remove(present[name])
