"""Shared instances in the full profile: which instance hosts one."""

from collections.abc import Sequence
from functools import cache

from sqlalchemy import ColumnElement, Select, and_, bindparam, select
from sqlalchemy.orm import Session

from slapos.master.catalog.model import SupplyNode
from slapos.master.nodes.model import ComputeNode
from slapos.master.provisioning import placement
from slapos.master.provisioning.filters import Filters
from slapos.master.provisioning.model import InstanceNode, SoftwareInstance
from slapos.master.provisioning.offers import Offer
from slapos.master.provisioning.placement import Shape
from slapos.master.provisioning.waiting import Refusal, Why
from slapos.protocol.states import InstanceState
from slapos.system.identifier import Identifiers

#: Among how many hosts one is chosen by chance.
CHOICE = 100

HOST = (
    select(SoftwareInstance)
    .where(
        SoftwareInstance.id == bindparam("id"),
        SoftwareInstance.requested_state != InstanceState.DESTROYED,
        SoftwareInstance.partition_id.is_not(None),
    )
    .with_for_update(key_share=True, of=SoftwareInstance)
)


def find_host(
    session: Session,
    identifiers: Identifiers,
    shared: SoftwareInstance,
    filters: Filters,
    offers: Sequence[Offer],
) -> tuple[SoftwareInstance, Offer] | Refusal:
    """Return the instance that hosts a shared one, locked until the end, or why there is none.

    It is of the same release and type, on a node of a supply that allows them: behind an instance
    node of the project, or in the same tree where the supply allows that.
    """
    is_closed = False
    for offer in offers:
        shape = placement.shape_of(filters, offer)
        values = placement.values_of(shared, filters, offer) | {
            "host": filters.host,
            "project_id": shared.tree.project_id,
            "software_type": shared.software_type,
        }
        ways = (True, False) if offer.shared_in_same_tree else (False,)
        for in_tree in ways:
            found = session.scalars(_hosts(shape, in_tree, bool(filters.host)), values).all()
            while found:
                chosen = found[int(identifiers.fraction() * len(found))]
                host = session.scalar(
                    HOST, {"id": chosen}, execution_options={"populate_existing": True}
                )
                if host is not None:
                    return host, offer
                found = [each for each in found if each != chosen]
            anywhere = _hosts(shape, in_tree, bool(filters.host), anyhow=True)
            is_closed = is_closed or session.execute(anywhere, values).first() is not None
    return _why_none(shared, filters, is_closed)


@cache
def _hosts(shape: Shape, in_tree: bool, by_guid: bool, anyhow: bool = False) -> Select[int]:
    """Return the ids of hosts; with `anyhow` also those that may not take more now."""
    # What is on a remote node hosts what its own master places there.
    conditions = [*placement.as_filtered(shape), ~ComputeNode.is_remote]
    if not anyhow:
        conditions += [placement.is_open(), placement.has_capacity()]
    if shape.unique_by_network:
        conditions.append(placement.in_new_network())
    if by_guid:
        conditions.append(SoftwareInstance.reference == bindparam("host"))
    statement = select(SoftwareInstance.id)
    if in_tree:
        conditions.append(SoftwareInstance.tree_id == bindparam("tree_id"))
    else:
        statement = statement.join(InstanceNode, InstanceNode.instance_id == SoftwareInstance.id)
        conditions.append(InstanceNode.project_id == bindparam("project_id"))
    return (
        statement.join(ComputeNode, ComputeNode.id == SoftwareInstance.node_id)
        .join(
            SupplyNode,
            and_(placement.of_supply(), SupplyNode.node_id == SoftwareInstance.node_id),
        )
        .where(
            SoftwareInstance.software_url == bindparam("url"),
            SoftwareInstance.software_type == bindparam("software_type"),
            SoftwareInstance.partition_id.is_not(None),
            SoftwareInstance.requested_state != InstanceState.DESTROYED,
            *conditions,
        )
        .order_by(SoftwareInstance.id)
        .limit(CHOICE)
    )


def find_remote_node(
    session: Session, shared: SoftwareInstance, filters: Filters, offers: Sequence[Offer]
) -> tuple[ComputeNode, Offer] | None:
    """Return a remote node where a shared instance may be, whoever hosts it there."""
    if filters.host or filters.here_only:
        return None
    for offer in offers:
        shape = placement.shape_of(filters, offer)
        values = placement.values_of(shared, filters, offer)
        node_id = session.scalar(_remote_nodes(shape), values)
        if node_id is not None:
            return session.get_one(ComputeNode, node_id), offer
    return None


@cache
def _remote_nodes(shape: Shape) -> Select[int]:
    conditions: list[ColumnElement[bool]] = [placement.is_open(), placement.has_capacity()]
    conditions.append(ComputeNode.is_remote.is_(True))
    if shape.unique_by_network:
        conditions.append(placement.in_new_network())
    return placement.on_nodes(shape, *conditions).order_by(SupplyNode.node_id).limit(1)


def _why_none(shared: SoftwareInstance, filters: Filters, is_closed: bool) -> Refusal:
    named = f" of the guid {filters.host}" if filters.host else ""
    what = f"the type {shared.software_type!r} of the release {shared.software_url}"
    if is_closed:
        return Refusal(
            Why.NODE_CLOSED,
            f"the instances{named} that host shared ones of {what} are on nodes that are closed or "
            "bear no more; it is placed as soon as one is opened or has room",
        )
    return Refusal(
        Why.NO_HOST,
        f"no instance{named} hosts shared ones of {what} where the filters ask; a production "
        "manager can make one an instance node, or request it with other filters",
    )
