"""What can be done with nodes. Nothing here knows of HTTP, and nothing here commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session, selectinload

from slapos.master.identity.caller import CallerKind, caller_of
from slapos.master.identity.rights import Action, not_there, require, visible
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes.exchange import heard_from, touch
from slapos.master.nodes.model import (
    REFERENCE_LENGTH,
    AllocationScope,
    ComputeNode,
    ComputePartition,
    NodeExchange,
    PartitionAddress,
    PartitionCapability,
    PartitionState,
)
from slapos.master.numbering import next_number
from slapos.master.tasks.task import sense
from slapos.master.text import checked_text
from slapos.protocol.errors import Conflict, Forbidden, InvalidRequest, NotFound
from slapos.system.clock import Clock

#: How many nodes an error message names.
NAMED_NODES = 10
OS_TYPE_LENGTH = 1000
#: The task that looks for places for those who wait for one.
ALLOCATE_INSTANCES = "allocate_instances"
#: The task that takes closed nodes out of use, once nothing is on them.
INVALIDATE_CLOSED_NODES = "invalidate_closed_nodes"


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
    """What a node says it has, and is; what it does not say stays as it was."""

    reference: str
    partitions: Sequence[PartitionFormat]
    address: str | None = None
    netmask: str | None = None
    os_type: str | None = None
    public_address: str | None = None
    slapos_version: str | None = None


def nodes(session: Session) -> Sequence[ComputeNode]:
    """Return every node, by reference."""
    return session.scalars(select(ComputeNode).order_by(ComputeNode.reference)).all()


def seen(session: Session, statement: Select[Any]) -> Select[Any]:
    """Return a SELECT among nodes that leaves out those that the caller may not see."""
    return visible(
        session, statement, Kind.NODE, project=ComputeNode.project_id, node=ComputeNode.id
    )


NODE = select(ComputeNode).where(ComputeNode.reference == bindparam("reference"))
LOCKED_NODE = NODE.with_for_update(key_share=True, of=ComputeNode)
OF_TITLE = select(ComputeNode.reference).where(
    ComputeNode.project_id == bindparam("project_id"),
    ComputeNode.title == bindparam("title"),
    ComputeNode.invalidated_at.is_(None),
)
PARTITION = (
    select(ComputePartition)
    .join(ComputeNode)
    .where(
        ComputeNode.reference == bindparam("node"),
        ComputePartition.reference == bindparam("reference"),
    )
)


def find_node(session: Session, reference: str, *, lock: bool = False) -> ComputeNode:
    """Return a node that the caller may see, or raise NotFound.

    With `lock`, nobody else may lock it until the end.
    """
    node = session.scalar(LOCKED_NODE if lock else NODE, {"reference": reference})
    if node is None:
        raise _no_node(session, reference)
    require(session, Action.SEE, node)
    return node


def _no_node(session: Session, reference: str) -> NotFound:
    if not caller_of(session).may_all:
        return not_there(Subject(Kind.NODE, reference))
    known = session.scalars(
        select(ComputeNode.reference).order_by(ComputeNode.reference).limit(NAMED_NODES)
    ).all()
    return NotFound(
        f"there is no node {reference!r}; known are: {', '.join(known) or 'none'}. "
        "A node makes itself known by `slapos node format`"
    )


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
    check_title(session, project_id, title)
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


def check_title(session: Session, project_id: int, title: str) -> None:
    """Raise unless a node of a project may be called so: Conflict when another one is."""
    checked_text("the title of a node", title, REFERENCE_LENGTH)
    sought = {"project_id": project_id, "title": title}
    taken = session.scalar(OF_TITLE, sought)
    if taken is not None:
        raise Conflict(
            f"the project has a node {title!r} already: {taken}; give another title, "
            "or give that one another or remove it first"
        )


def find_partition(session: Session, node: str, reference: str) -> ComputePartition:
    """Return a partition of a node that the caller may see, or raise NotFound."""
    partition = session.scalar(PARTITION, {"node": node, "reference": reference})
    if partition is None:
        find_node(session, node)
        raise NotFound(
            f"the node {node!r} has no partition {reference!r}; "
            "`slapos node format` tells the master which ones it has"
        )
    require(session, Action.SEE, partition)
    return partition


def partitions(session: Session, node_id: int, *, lock: bool = False) -> Sequence[ComputePartition]:
    """Return the partitions of a node with all they have, in the order the node named them.

    With `lock`, nobody else takes one until the end.
    """
    statement = (
        select(ComputePartition)
        .where(ComputePartition.node_id == node_id)
        .order_by(ComputePartition.id)
        .options(
            selectinload(ComputePartition.addresses), selectinload(ComputePartition.capabilities)
        )
    )
    if lock:
        statement = statement.with_for_update(of=ComputePartition)
    return session.scalars(statement).all()


def format_node(session: Session, clock: Clock, told: NodeFormat) -> Sequence[ComputePartition]:
    """Make a node and its partitions as the node tells, changing only what is different.

    A partition that is no longer named goes when it is free. A busy one is kept, marked as missing,
    and goes as soon as it is free and still missing. Return those that have other addresses now.
    """
    _check(told)
    if caller_of(session).kind is CallerKind.LOCAL:
        ensure_node(session, clock, told.reference)
    node = find_node(session, told.reference, lock=True)
    _check_says_itself(session, node)
    _set_own_fields(node, told)
    node.formatted_at = clock.now()
    heard_from(session, node.id, clock.now())
    # Locked, so that nobody takes a partition that goes.
    found = partitions(session, node.id, lock=True)
    known = {partition.reference: partition for partition in found}
    readdressed, gains = [], False
    for wanted in told.partitions:
        partition = known.pop(wanted.reference, None)
        if partition is None:
            partition = ComputePartition(node_id=node.id, reference=wanted.reference)
            session.add(partition)
            gains = True
        gains |= partition.missing_since is not None
        partition.missing_since = None
        if _set_addresses(partition, wanted.addresses):
            readdressed.append(partition)
            touch(session, node.id)
        gains |= _set_capabilities(partition, wanted.capabilities)
    for partition in known.values():
        if partition.state == PartitionState.FREE:
            session.delete(partition)
        elif partition.missing_since is None:
            partition.missing_since = clock.now()
    session.flush()
    if gains:
        may_take_more(session, node)
    return readdressed


def may_take_more(session: Session, node: ComputeNode) -> None:
    """Have those looked at that wait for a place, as there may be one on a node now."""
    _sense_places(session, f"node:{node.id}")


def sense_project(session: Session, project_id: int) -> None:
    """Have those looked at that wait for a place in a project: what it allows has changed."""
    _sense_places(session, f"project:{project_id}")


def _sense_places(session: Session, key: str) -> None:
    if caller_of(session).kind is not CallerKind.LOCAL:  # there, nobody waits for a place
        sense(session, ALLOCATE_INSTANCES, key)


def _check_says_itself(session: Session, node: ComputeNode) -> None:
    """Raise unless it is the node that asks: nobody else knows what it has."""
    node.check_valid()
    require(session, Action.REPORT, node)
    caller = caller_of(session)
    if not caller.may_all and caller.kind is not CallerKind.NODE:
        raise Forbidden(
            f"only the node {node.reference} itself says what it has: `slapos node format` there"
        )


def _set_own_fields(node: ComputeNode, told: NodeFormat) -> None:
    node.address, node.netmask = told.address, told.netmask
    for name in ("os_type", "public_address", "slapos_version"):
        if getattr(told, name) is not None:
            setattr(node, name, getattr(told, name))


def free_partition(session: Session, partition: ComputePartition) -> None:
    """Give a partition back; one that its node no longer names goes away."""
    partition.release()
    if partition.missing_since is not None:
        session.delete(partition)
    if partition.node.allocation_scope == AllocationScope.FOREVER:
        sense(session, INVALIDATE_CLOSED_NODES, partition.node.reference)


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
    checked_text("os_type", told.os_type or "", OS_TYPE_LENGTH, empty=True)
    for text in (told.public_address, told.slapos_version):
        checked_text("what a node says of itself", text or "", REFERENCE_LENGTH, empty=True)


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


def _set_capabilities(partition: ComputePartition, wanted: Sequence[str]) -> bool:
    present = {capability.name: capability for capability in partition.capabilities}
    for name in sorted(set(wanted) - present.keys()):
        partition.capabilities.append(PartitionCapability(name=name))
    for name in present.keys() - set(wanted):
        partition.capabilities.remove(present[name])
    return present.keys() != set(wanted)
