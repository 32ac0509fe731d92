"""Where something of the catalogue is in use: by a supply, on a node, by an instance."""

from collections.abc import Sequence

from sqlalchemy import bindparam, exists, select
from sqlalchemy.orm import Session

from slapos.master.catalog.model import AllocationSupply, SoftwareInstallation, SupplyCell
from slapos.master.nodes.model import ComputeNode, ComputePartition
from slapos.master.provisioning.model import SoftwareInstance

#: How many an error message names.
NAMED = 10

_SUPPLIES = (
    select(AllocationSupply.reference)
    .join(SupplyCell)
    .distinct()
    .order_by(AllocationSupply.reference)
    .limit(NAMED)
)
OF_RELEASE = _SUPPLIES.where(SupplyCell.release_id == bindparam("id"))
OF_TYPE = _SUPPLIES.where(SupplyCell.type_id == bindparam("id"))
NODES_WITH = (
    select(ComputeNode.reference)
    .join(SoftwareInstallation)
    .where(
        SoftwareInstallation.url == bindparam("url"),
        ComputeNode.project_id == bindparam("project_id"),
        ComputeNode.invalidated_at.is_(None),
    )
    .order_by(ComputeNode.reference)
    .limit(NAMED)
)
#: Whoever takes a partition of the node at this moment is waited for.
LOCK_PARTITIONS = (
    select(ComputePartition.id)
    .where(ComputePartition.node_id == bindparam("node_id"))
    .order_by(ComputePartition.id)
    .with_for_update()
)
IS_USED = select(
    exists().where(
        SoftwareInstance.node_id == bindparam("node_id"),
        SoftwareInstance.software_url == bindparam("url"),
    )
)


def supplies_of_release(session: Session, release_id: int) -> Sequence[str]:
    """Return the references of supplies that allow a release."""
    return session.scalars(OF_RELEASE, {"id": release_id}).all()


def supplies_of_type(session: Session, type_id: int) -> Sequence[str]:
    """Return the references of supplies that allow a type."""
    return session.scalars(OF_TYPE, {"id": type_id}).all()


def nodes_with(session: Session, project_id: int, url: str) -> Sequence[str]:
    """Return the references of a project's nodes that have a release, or are to lose it."""
    return session.scalars(NODES_WITH, {"project_id": project_id, "url": url}).all()


def is_used(session: Session, node_id: int, url: str) -> bool:
    """Return whether an instance on a node is of a release; none comes until the end."""
    session.execute(LOCK_PARTITIONS, {"node_id": node_id})
    return bool(session.scalar(IS_USED, {"node_id": node_id, "url": url}))
