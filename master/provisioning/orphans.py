"""Instances that nobody asks for any more: destroyed after a grace."""

from datetime import datetime

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from slapos.master.provisioning import lifecycle
from slapos.master.provisioning.model import SoftwareInstance
from slapos.protocol.states import InstanceState
from slapos.system.clock import Clock

#: How many are destroyed in one transaction.
PIECE = 50

DUE = (
    select(SoftwareInstance)
    .where(
        SoftwareInstance.orphaned_at.is_not(None),
        SoftwareInstance.orphaned_at <= bindparam("until"),
    )
    .order_by(SoftwareInstance.orphaned_at, SoftwareInstance.id)
    .limit(PIECE)
    .with_for_update(skip_locked=True, of=SoftwareInstance)
)


def collect(session: Session, clock: Clock, until: datetime) -> int:
    """Have those destroyed that are orphans since some time; return how many there were."""
    found = session.scalars(DUE, {"until": until}).all()
    for instance in found:
        instance.orphaned_at = None  # it is dealt with
        lifecycle.lower_state(session, clock, instance, InstanceState.DESTROYED)
    session.flush()
    return len(found)
