"""What a change of state takes along: those below, the host, and in the end the partition."""

from datetime import datetime

from sqlalchemy.orm import Session

from slapos.master.identity.caller import CallerKind, caller_of
from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import ComputePartition
from slapos.master.provisioning import lookup, placement, waiting
from slapos.master.provisioning.model import SoftwareInstance
from slapos.protocol.states import InstanceState
from slapos.system.clock import Clock


def set_state(
    session: Session, clock: Clock, instance: SoftwareInstance, state: InstanceState
) -> None:
    """Set what is wanted; what is stopped or destroyed takes those below along."""
    instance.requested_state = state
    if instance.reported_state == InstanceState.DESTROYED:
        instance.reported_state = None
    mark_changed(instance, clock.now())
    if state is InstanceState.STARTED:
        return  # those below are started when their requester asks for them again
    for each in lookup.requested_by(session, instance):
        lower_state(session, clock, each, state)
    # Nobody has to confirm that it is gone: it has no node, or what it is elsewhere is looked
    # after when it is no more here.
    if state is InstanceState.DESTROYED and (
        instance.partition_id is None or instance.is_elsewhere
    ):
        _end(session, clock, instance)


def lower_state(
    session: Session, clock: Clock, instance: SoftwareInstance, state: InstanceState
) -> None:
    """Set what is wanted, unless less is wanted already."""
    order = list(InstanceState)
    if order.index(InstanceState(instance.requested_state)) < order.index(state):
        set_state(session, clock, instance, state)


def _end(session: Session, clock: Clock, instance: SoftwareInstance) -> None:
    """Remove an instance that no node has to remove, once those below it are gone."""
    instance.stop_waiting()
    if lookup.requested_by(session, instance):
        instance.report(clock.now(), InstanceState.DESTROYED)
    else:
        forget(session, instance)


def forget(session: Session, instance: SoftwareInstance) -> None:
    """Remove an instance that is gone, and whoever above only waited for it."""
    for shared in lookup.shared_on(session, instance):  # they have to find another host
        shared.host, shared.node, shared.connection = None, None, {}
        if caller_of(session).kind is not CallerKind.LOCAL:
            waiting.for_another_host(session, shared)
    partition, requester, tree = instance.partition, instance.requester, instance.tree
    session.delete(instance)
    session.flush()
    if partition is not None:
        _free(session, partition)
    if instance.is_root:
        session.delete(tree)
        session.flush()
        return
    for above in (requester, lookup.root_of(session, tree)):
        if (
            above is not None
            and above.reported_state == InstanceState.DESTROYED
            and not lookup.requested_by(session, above)
        ):
            forget(session, above)
            return


def _free(session: Session, partition: ComputePartition) -> None:
    """Give a partition back, and have those looked at that may want it."""
    node = partition.node
    placement.has_vacancy(session, node.id)
    nodes.free_partition(session, partition)
    session.flush()
    if caller_of(session).kind is not CallerKind.LOCAL:
        nodes.may_take_more(session, node)


def mark_changed(instance: SoftwareInstance, now: datetime) -> None:
    """Tell the node that has to act: a shared instance is the business of its host."""
    instance.mark_changed(now)
    if instance.host is not None:
        instance.host.mark_changed(now)
