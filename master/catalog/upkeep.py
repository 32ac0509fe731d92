"""What becomes of what is in use no more: releases on nodes, and what supplies name."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, exists, func, select
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from slapos.master.catalog import use
from slapos.master.catalog.model import (
    AllocationSupply,
    ProductState,
    SoftwareInstallation,
    SoftwareProduct,
    SoftwareRelease,
    SupplyCell,
    SupplyNode,
)
from slapos.master.identity.caller import Role
from slapos.master.identity.model import Membership
from slapos.master.nodes.model import ComputeNode
from slapos.master.provisioning.model import SoftwareInstance
from slapos.protocol.states import InstallationState

#: How long a release stays that was put on a node before a supply names it.
GRACE = timedelta(days=1)

_NEXT = (
    select(SoftwareInstallation.id)
    .where(SoftwareInstallation.id > bindparam("after"))
    .order_by(SoftwareInstallation.id)
    .limit(bindparam("limit"))
)
LAST = select(func.max(_NEXT.subquery().c.id))
_USED = exists().where(
    SoftwareInstance.node_id == SoftwareInstallation.node_id,
    SoftwareInstance.software_url == SoftwareInstallation.url,
)
_ALLOWED = (
    exists()
    .where(
        SupplyNode.node_id == SoftwareInstallation.node_id,
        AllocationSupply.id == SupplyNode.supply_id,
        AllocationSupply.enabled,
        SupplyCell.supply_id == AllocationSupply.id,
        SoftwareRelease.id == SupplyCell.release_id,
        SoftwareRelease.url == SoftwareInstallation.url,
        SoftwareProduct.id == SoftwareRelease.product_id,
        SoftwareProduct.state != ProductState.WITHDRAWN,
    )
    .correlate(SoftwareInstallation)
)
_SLICE = (
    select(SoftwareInstallation)
    .where(
        SoftwareInstallation.id > bindparam("after"), SoftwareInstallation.id <= bindparam("last")
    )
    .order_by(SoftwareInstallation.id)
)
UNUSED = _SLICE.where(
    SoftwareInstallation.requested_state == InstallationState.AVAILABLE,
    SoftwareInstallation.created_at < bindparam("before"),
    ~_USED,
    ~_ALLOWED,
)
MISSED = _SLICE.where(SoftwareInstallation.requested_state == InstallationState.DESTROYED, _USED)
GONE = (
    select(ComputeNode.id)
    .where(
        ComputeNode.invalidated_at.is_not(None),
        exists().where(SupplyNode.node_id == ComputeNode.id)
        | exists().where(SoftwareInstallation.node_id == ComputeNode.id),
    )
    .order_by(ComputeNode.id)
    .limit(bindparam("limit"))
)
#: Supplies for one person who is no customer of the project any more.
WITHOUT_CUSTOMER = (
    select(AllocationSupply)
    .where(
        AllocationSupply.enabled,
        AllocationSupply.customer_id.is_not(None),
        ~exists().where(
            Membership.person_id == AllocationSupply.customer_id,
            Membership.project_id == AllocationSupply.project_id,
            Membership.role == Role.CUSTOMER,
        ),
    )
    .order_by(AllocationSupply.id)
    .with_for_update(of=AllocationSupply)
)
_PLAINLY = {"synchronize_session": False}


def give_up_unused(
    session: Session, now: datetime, after: int, limit: int
) -> tuple[int, int | None]:
    """Have releases removed from nodes where no supply allows them and no instance uses them.

    A release that an instance came to use at the very moment is wanted again. It looks at `limit`
    installations behind the id `after`; it returns how many changed, and the last id, None at the
    end.
    """
    last = session.scalar(LAST, {"after": after, "limit": limit})
    if last is None:
        return 0, None
    sought = {"after": after, "last": last, "before": now - GRACE}
    count = 0
    for each in session.scalars(MISSED, sought).all():
        each.want(InstallationState.AVAILABLE)
        count += 1
    for each in session.scalars(UNUSED, sought).all():
        if not use.is_used(session, each.node_id, each.url):
            each.want(InstallationState.DESTROYED)
            count += 1
    session.flush()
    return count, last


def forget_gone_nodes(session: Session, limit: int) -> int:
    """Take nodes that are gone for good out of supplies, with the releases that they had."""
    ids: Sequence[int] = session.scalars(GONE, {"limit": limit}).all()
    count = 0
    for table in (SupplyNode, SoftwareInstallation) if ids else ():
        statement = delete(table).where(table.node_id.in_(ids))
        gone = session.execute(statement, execution_options=_PLAINLY)
        assert isinstance(gone, CursorResult)
        count += gone.rowcount
    return count


def disable_without_customer(session: Session) -> int:
    """Disable supplies for one person who is no customer of their project any more."""
    found = session.scalars(WITHOUT_CUSTOMER).all()
    for supply in found:
        supply.enabled = False
    session.flush()
    return len(found)
