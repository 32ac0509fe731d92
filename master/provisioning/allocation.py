"""Finding a place: a free partition for an instance, a host for a shared one."""

from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import (
    ComputeNode,
    ComputePartition,
    PartitionCapability,
    PartitionState,
)
from slapos.master.provisioning.model import SoftwareInstance
from slapos.protocol.errors import NoCapacity, NotFound
from slapos.protocol.states import InstanceState

FREE = select(ComputePartition).where(
    ComputePartition.node_id == bindparam("node_id"),
    ComputePartition.state == PartitionState.FREE,
    ComputePartition.missing_since.is_(None),
)
FIRST = FREE.order_by(ComputePartition.id).limit(1)
WITH_CAPABILITY = FIRST.where(
    ComputePartition.capabilities.any(PartitionCapability.name == bindparam("capability"))
)
#: A partition that has capabilities is kept for those who ask for them.
WITHOUT_CAPABILITY = FIRST.where(~ComputePartition.capabilities.any())


def place(session: Session, instance: SoftwareInstance, node_reference: str) -> None:
    """Give an instance the first free partition of a node, or raise NoCapacity with the reason.

    The node is locked until the end of the transaction, so nobody else takes the same partition.
    """
    node = _node(session, instance, node_reference)
    capability = instance.filters.get("capability")
    sought: dict[str, Any] = {"node_id": node.id}
    partition = (
        session.scalar(WITH_CAPABILITY, sought | {"capability": str(capability)})
        if capability
        else session.scalar(WITHOUT_CAPABILITY, sought)
    )
    if partition is None:
        raise NoCapacity(_why_none_is_free(session, instance, node, capability))
    partition.occupy()
    instance.node, instance.partition = node, partition


def find_host(session: Session, shared: SoftwareInstance, node_reference: str) -> SoftwareInstance:
    """Return the instance that a shared instance becomes a part of, or raise NoCapacity.

    It runs the same release and type on the node; the filter `instance_guid` names one of them.
    """
    node = _node(session, shared, node_reference)
    query = (
        select(SoftwareInstance)
        .join(SoftwareInstance.partition)
        .where(
            SoftwareInstance.node_id == node.id,
            SoftwareInstance.software_url == shared.software_url,
            SoftwareInstance.software_type == shared.software_type,
            SoftwareInstance.requested_state != InstanceState.DESTROYED,
        )
        .order_by(ComputePartition.id)
        .limit(1)
    )
    guid = shared.filters.get("instance_guid")
    if guid:
        query = query.where(SoftwareInstance.reference.in_(_references(guid, node_reference)))
    host = session.scalar(query)
    if host is None:
        raise NoCapacity(
            f"no instance can host the shared instance {shared.title!r}: on the node "
            f"{node.reference!r} none {f'with the guid {guid} ' if guid else ''}"
            f"has the release {shared.software_url} and the type {shared.software_type!r}; "
            "request such an instance first, or name another node with the filter computer_guid"
        )
    return host


def may_stay(shared: SoftwareInstance, host: SoftwareInstance) -> bool:
    """Return whether a shared instance may stay where it is."""
    guid = shared.filters.get("instance_guid")
    return (
        host.software_url == shared.software_url
        and host.software_type == shared.software_type
        and host.requested_state != InstanceState.DESTROYED
        and (
            not guid
            or host.node is None
            or host.reference in _references(guid, host.node.reference)
        )
    )


def _references(guid: object, node_reference: str) -> tuple[str, str]:
    """Return what an `instance_guid` may mean: clients also send the bare name of a partition."""
    return str(guid), f"{node_reference}-{guid}"


def _node(session: Session, instance: SoftwareInstance, reference: str) -> ComputeNode:
    try:
        return nodes.find_node(session, reference, lock=True)
    except NotFound as error:
        raise NoCapacity(f"{instance.title!r} cannot be placed: {error}") from error


def _why_none_is_free(
    session: Session, instance: SoftwareInstance, node: ComputeNode, capability: object
) -> str:
    count = select(func.count()).select_from(ComputePartition)
    total = session.scalar(count.where(ComputePartition.node_id == node.id)) or 0
    count_free = select(func.count()).select_from(FREE.subquery())
    free = session.scalar(count_free, {"node_id": node.id}) or 0
    chosen = " (filter computer_guid)" if instance.filters.get("computer_guid") else ""
    begin = f"{instance.title!r} cannot be placed on the node {node.reference!r}{chosen}: "
    if total == 0:
        return f"{begin}it has no partitions yet; run `slapos node format` there"
    if free == 0:
        return (
            f"{begin}it has {total} partitions and all are busy; destroy an instance, raise "
            "partition_amount and run `slapos node format`, or name another node with the filter "
            "computer_guid"
        )
    if capability:
        return f"{begin}none of its {free} free partitions has the capability {capability!r}"
    return f"{begin}its {free} free partitions are kept for requests that ask for a capability"
