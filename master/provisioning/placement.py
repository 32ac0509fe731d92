"""Finding a partition among thousands of nodes, in one statement that goes by indexes.

A search begins at a node by chance and goes up by the nodes' ids, then from the lowest: so those
who order at the same time look at different nodes. It takes the first free partition that nobody
else has just locked; only when there is none left does it wait for those who have. A node's row is
locked only if its capacity has a bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    Select,
    Update,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session, aliased
from sqlalchemy.orm.util import identity_key

from slapos.master.catalog.model import SoftwareInstallation, SupplyNode
from slapos.master.database import Base, constant
from slapos.master.monitoring.model import NodeLoss
from slapos.master.nodes.model import (
    AllocationScope,
    ComputeNode,
    ComputePartition,
    ComputerNetwork,
    NodeCategory,
    PartitionCapability,
    PartitionState,
)
from slapos.master.provisioning.filters import Filters
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.offers import Offer
from slapos.protocol.states import InstallationState
from slapos.system.identifier import Identifiers

#: How many nodes whose last capacity others just took are passed before it is given up for now.
TRIES = 20

FREE = constant(PartitionState.FREE)
_PARTITIONS = Base.metadata.tables[ComputePartition.__tablename__]
_SUPPLIED = Base.metadata.tables[SupplyNode.__tablename__]
_Free = aliased(ComputePartition)
_OtherNode = aliased(ComputeNode)
_PLAINLY = {"synchronize_session": False}


@dataclass(frozen=True)
class Shape:
    """Which conditions a search has: what makes its statement, without their values."""

    node: bool
    network: bool
    capability: bool
    unique_by_network: bool
    installed: bool
    categories: int
    here_only: bool = False


def shape_of(filters: Filters, offer: Offer) -> Shape:
    """Return which conditions the search for a place has."""
    return Shape(
        filters.node is not None,
        filters.network is not None,
        filters.capability is not None,
        filters.unique_by_network,
        not offer.installs_by_need,
        len(filters.categories),
        filters.here_only,
    )


def values_of(instance: SoftwareInstance, filters: Filters, offer: Offer) -> dict[str, Any]:
    """Return the values of the conditions of a search."""
    values: dict[str, Any] = {
        "supply_id": offer.supply_id,
        "weight": offer.weight,
        "url": instance.software_url,
        "computer_guid": filters.node,
        "network_guid": filters.network,
        "capability": filters.capability,
        "tree_id": instance.tree.id,
        "instance_id": instance.id or 0,
    }
    for number, (name, value) in enumerate(filters.categories):
        values |= {f"category_{number}": name, f"value_{number}": value}
    return values


def of_supply() -> ColumnElement[bool]:
    """Return the condition that a node is one of the supply's."""
    return SupplyNode.supply_id == bindparam("supply_id")


def as_filtered(shape: Shape) -> Sequence[ColumnElement[bool]]:
    """Return the conditions that filters set on a node."""
    found: list[ColumnElement[bool]] = []
    if shape.node:
        found.append(ComputeNode.reference == bindparam("computer_guid"))
    if shape.network:
        network = select(ComputerNetwork.id).where(
            ComputerNetwork.reference == bindparam("network_guid")
        )
        found.append(ComputeNode.network_id == network.scalar_subquery())
    for number in range(shape.categories):
        found.append(
            exists().where(
                NodeCategory.node_id == ComputeNode.id,
                NodeCategory.name == bindparam(f"category_{number}"),
                NodeCategory.value == bindparam(f"value_{number}"),
            )
        )
    if shape.here_only:
        found.append(~ComputeNode.is_remote)
    return found


def is_open() -> ColumnElement[bool]:
    """Return the condition that new instances may be placed on a node: not on a lost one."""
    return and_(
        ComputeNode.allocation_scope == constant(AllocationScope.OPEN),
        ~exists().where(NodeLoss.node_id == ComputeNode.id),
    )


def in_new_network() -> ColumnElement[bool]:
    """Return the condition that a node is in a network that the tree is not in yet."""
    taken = (
        exists()
        .where(
            SoftwareInstance.tree_id == bindparam("tree_id"),
            SoftwareInstance.id != bindparam("instance_id"),
            _OtherNode.id == SoftwareInstance.node_id,
            _OtherNode.network_id == ComputeNode.network_id,
        )
        .correlate(ComputeNode)
    )
    return and_(ComputeNode.network_id.is_not(None), ~taken)


def is_installed() -> ColumnElement[bool]:
    """Return the condition that the release is wanted on a node; a remote one needs none."""
    wanted = exists().where(
        SoftwareInstallation.node_id == ComputeNode.id,
        SoftwareInstallation.url == bindparam("url"),
        SoftwareInstallation.requested_state == constant(InstallationState.AVAILABLE),
    )
    return or_(ComputeNode.is_remote, wanted)


def has_capacity() -> ColumnElement[bool]:
    """Return the condition that a node can bear so much more."""
    load = (
        select(func.coalesce(func.sum(SoftwareInstance.weight), constant(0)))
        .where(SoftwareInstance.node_id == ComputeNode.id)
        .correlate(ComputeNode)
        .scalar_subquery()
    )
    fits = load + bindparam("weight") <= ComputeNode.capacity
    return case((ComputeNode.capacity.is_(None), true()), else_=fits)


def is_free(shape: Shape) -> Sequence[ColumnElement[bool]]:
    """Return the conditions that a partition of a node may be taken.

    One that has capabilities is kept for those who ask for them.
    """
    offered = exists().where(PartitionCapability.partition_id == _Free.id)
    if shape.capability:
        offered = offered.where(PartitionCapability.name == bindparam("capability"))
    return (
        _Free.state == FREE,
        _Free.missing_since.is_(None),
        offered if shape.capability else ~offered,
    )


def on_nodes(shape: Shape, *more: ColumnElement[bool]) -> Select[Any]:
    """Return a SELECT over the nodes of a supply, as filtered; join partitions as `_Free`."""
    return (
        select(ComputeNode.id)
        .select_from(SupplyNode)
        .join(ComputeNode, ComputeNode.id == SupplyNode.node_id)
        .where(of_supply(), *as_filtered(shape), *more)
    )


def with_partitions(nodes: Select[Any], shape: Shape) -> Select[Any]:
    """Return the SELECT with the free partitions of its nodes."""
    if not shape.capability:
        nodes = nodes.where(SupplyNode.vacant)
    return nodes.join(_Free, _Free.node_id == ComputeNode.id).where(*is_free(shape))


# What is to be known of the node of a partition that is being taken. In words, as SQLAlchemy leaves
# out the names of tables after SQLite's RETURNING, where it takes them to be clear.
_CAPACITY: ColumnElement[int] = literal_column(
    "(SELECT n.capacity FROM compute_nodes AS n WHERE n.id = compute_partitions.node_id)", Integer
).label("capacity")
_HAS_MORE: ColumnElement[bool] = literal_column(
    "EXISTS (SELECT 1 FROM compute_partitions AS other "
    "WHERE other.node_id = compute_partitions.node_id AND other.id <> compute_partitions.id "
    f"AND other.state = '{PartitionState.FREE}' AND other.missing_since IS NULL AND NOT EXISTS "
    "(SELECT 1 FROM partition_capabilities AS c WHERE c.partition_id = other.id))",
    Boolean,
).label("has_more")


@cache
def _take(shape: Shape, upwards: bool, wait: bool) -> Update:
    """Return the statement that takes a partition; it returns nothing when it found none."""
    conditions = [is_open(), has_capacity()]
    if shape.unique_by_network:
        conditions.append(in_new_network())
    if shape.installed:
        conditions.append(is_installed())
    start = _start()
    place = SupplyNode.node_id >= start if upwards else SupplyNode.node_id < start
    sought = (
        with_partitions(on_nodes(shape, place, *conditions), shape)
        .with_only_columns(_Free.id)
        .order_by(SupplyNode.node_id)
        .limit(constant(1))
        .with_for_update(of=_Free, skip_locked=not wait)
    )
    columns = _PARTITIONS.c
    return (
        update(_PARTITIONS)
        .where(columns.id == sought.scalar_subquery(), columns.state == FREE)
        .values(state=constant(PartitionState.BUSY))
        .returning(columns.id, columns.node_id, _CAPACITY, _HAS_MORE)
    )


def _start() -> ColumnElement[int]:
    """Return the id of a node to begin at: the one that is given, or one by chance."""
    of_it = and_(SupplyNode.supply_id == bindparam("supply_id"), SupplyNode.vacant)
    low = select(func.min(SupplyNode.node_id)).where(of_it).correlate(None).scalar_subquery()
    high = select(func.max(SupplyNode.node_id)).where(of_it).correlate(None).scalar_subquery()
    by_chance = cast(low + bindparam("fraction") * (high - low), Integer)
    return func.coalesce(bindparam("start", type_=Integer), by_chance, constant(0))


LOCK_NODE = (
    select(ComputeNode.id).where(ComputeNode.id == bindparam("id")).with_for_update(key_share=True)
)
LOAD = select(func.coalesce(func.sum(SoftwareInstance.weight), constant(0))).where(
    SoftwareInstance.node_id == bindparam("id")
)
GIVE_BACK = (
    update(_PARTITIONS)
    .where(_PARTITIONS.c.id == bindparam("given"))
    .values(state=PartitionState.FREE)
)


@dataclass(frozen=True)
class Taken:
    """A partition that is now the instance's."""

    partition_id: int
    node_id: int
    offer: Offer


def take_partition(
    session: Session,
    identifiers: Identifiers,
    instance: SoftwareInstance,
    filters: Filters,
    offers: Sequence[Offer],
) -> Taken | None:
    """Take a free partition for an instance; None when there is none that it may have."""
    for offer in _by_chance(offers, identifiers):
        shape = shape_of(filters, offer)
        values = values_of(instance, filters, offer) | {"fraction": identifiers.fraction()}
        waits = (False,) if session.get_bind().dialect.name == "sqlite" else (False, True)
        for wait in waits:
            for upwards in (True, False):
                found = _search(session, _take(shape, upwards, wait), values, offer, upwards)
                if found is not None:
                    return found
    return None


def _by_chance(offers: Sequence[Offer], identifiers: Identifiers) -> Sequence[Offer]:
    """Return supplies in turn, beginning by chance; those for the owner alone stay the first."""
    private = [offer for offer in offers if offer.is_private]
    others = [offer for offer in offers if not offer.is_private]
    turn = int(identifiers.fraction() * len(others))
    return [*private, *others[turn:], *others[:turn]]


def _search(
    session: Session, statement: Update, values: dict[str, Any], offer: Offer, upwards: bool
) -> Taken | None:
    start: int | None = None
    for _ in range(TRIES):
        # Past the mapper, which would make the statement anew each time.
        row = session.connection().execute(statement, values | {"start": start}).first()
        if row is None:
            return None
        if row.capacity is None or _bears(session, row.node_id, row.capacity, offer.weight):
            _expire(session, row.id)
            if not row.has_more:
                _leave_out(session, row.node_id)
            return Taken(row.id, row.node_id, offer)
        session.execute(GIVE_BACK, {"given": row.id}, execution_options=_PLAINLY)
        if not upwards:
            return None  # it is tried again: so many came at once
        start = row.node_id + 1
    return None


def _bears(session: Session, node_id: int, capacity: int, weight: int) -> bool:
    """Lock a node whose capacity has a bound, and return whether it can bear so much more."""
    session.execute(LOCK_NODE, {"id": node_id})
    load = session.execute(LOAD, {"id": node_id}).scalar_one()
    return bool(load + weight <= capacity)


def _expire(session: Session, partition_id: int) -> None:
    """Have the session read a partition anew, if it knows it."""
    known = session.identity_map.get(identity_key(ComputePartition, partition_id))
    if known is not None:
        session.expire(known, ["state"])


_OF_NODE = SupplyNode.node_id == bindparam("id")
LOCK_VACANCIES = (
    select(SupplyNode.vacant).where(_OF_NODE).order_by(SupplyNode.supply_id).with_for_update()
)
IS_VACANT = (
    select(_Free.id)
    .where(
        _Free.node_id == bindparam("id"),
        _Free.state == FREE,
        _Free.missing_since.is_(None),
        ~exists().where(PartitionCapability.partition_id == _Free.id),
    )
    .limit(1)
)
SET_VACANT = (
    update(_SUPPLIED)
    .where(
        _SUPPLIED.c.node_id == bindparam("id"),
        _SUPPLIED.c.vacant != bindparam("value"),
    )
    .values(vacant=bindparam("value"))
)


def _leave_out(session: Session, node_id: int) -> None:
    """Have searches leave out a node, as it has no free partition any more."""
    session.execute(LOCK_VACANCIES, {"id": node_id})
    if session.execute(IS_VACANT, {"id": node_id}).first() is None:
        _set_vacant(session, node_id, False)


def has_vacancy(session: Session, node_id: int) -> None:
    """Have searches look at a node again: one of its partitions is about to be free.

    It is said before the partition is freed, so that nobody says the contrary meanwhile.
    """
    if not all(session.scalars(LOCK_VACANCIES, {"id": node_id})):
        _set_vacant(session, node_id, True)


def _set_vacant(session: Session, node_id: int, value: bool) -> None:
    session.execute(SET_VACANT, {"id": node_id, "value": value}, execution_options=_PLAINLY)
