"""What nodes say of instances. Nothing here commits."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from slapos.master.identity.rights import Action, require
from slapos.master.nodes.exchange import heard_from
from slapos.master.provisioning import lifecycle, lookup
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.text import kept_message
from slapos.protocol.states import InstanceState
from slapos.system.clock import Clock


def report_state(
    session: Session,
    clock: Clock,
    instance: SoftwareInstance,
    state: InstanceState,
    about: datetime | None = None,
    since: datetime | None = None,
) -> Sequence[SoftwareInstance]:
    """Take in that a node has brought an instance to a state; `since` is when, if it says so.

    A destroyed one is forgotten, and its partition is free, once none of the instances that it
    requested are left; those are returned, and are now to be destroyed too. One that was ordered
    again while its node destroyed it, stays, for the node to make it anew.
    """
    require(session, Action.REPORT, instance)
    _heard_from_node_of(session, clock, instance)
    is_wanted_again = (
        instance.requested_state != InstanceState.DESTROYED
        and about is not None
        and about < instance.changed_at
    )
    if state is InstanceState.DESTROYED and is_wanted_again:
        instance.reported_state = None
        instance.mark_changed(clock.now())
        session.flush()
        return ()
    waiting: Sequence[SoftwareInstance] = ()
    if state is InstanceState.DESTROYED:
        instance.requested_state = state
        for each in lookup.requested_by(session, instance):
            lifecycle.lower_state(session, clock, each, state)
        waiting = lookup.requested_by(session, instance)
    instance.report(clock.now(), state, about, since)
    for shared in lookup.failed_shared(session, instance):
        shared.error = ""  # the node tells again which of them fail
    if state is InstanceState.DESTROYED and not waiting:
        lifecycle.forget(session, instance)
    session.flush()
    return waiting


def report_related(
    session: Session, clock: Clock, instance: SoftwareInstance, titles: Collection[str]
) -> None:
    """Take in which instances one asked for when it was processed last, by their titles.

    The others that it once asked for are orphans from now on, and those that it asks for are not.
    """
    require(session, Action.REPORT, instance)
    _heard_from_node_of(session, clock, instance)
    for child in lookup.requested_directly_by(session, instance):
        if child.title in titles:
            if child.orphaned_at is not None:
                child.orphaned_at = None
        elif child.orphaned_at is None and not child.is_to_go:
            child.orphaned_at = clock.now()
    session.flush()


def report_error(
    session: Session,
    clock: Clock,
    instance: SoftwareInstance,
    message: str,
    about: datetime | None = None,
    since: datetime | None = None,
) -> None:
    """Take in that a node fails with an instance; `since` is since when, if it says so."""
    require(session, Action.REPORT, instance)
    _heard_from_node_of(session, clock, instance)
    instance.report_error(clock.now(), kept_message(message), about, since)
    session.flush()


def _heard_from_node_of(session: Session, clock: Clock, instance: SoftwareInstance) -> None:
    if instance.node_id is not None:
        heard_from(session, instance.node_id, clock.now())
