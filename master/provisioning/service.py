"""What can be done with instances. Nothing here knows of HTTP, and nothing here commits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Text, cast, select
from sqlalchemy.orm import Session, joinedload

from slapos.master.catalog import service as catalog
from slapos.master.nodes import service as nodes
from slapos.master.provisioning import allocation
from slapos.master.provisioning.model import (
    REFERENCE_LENGTH,
    TICK,
    TITLE_LENGTH,
    ForwardedRequest,
    InstanceTree,
    SoftwareInstance,
)
from slapos.master.provisioning.policy import Policy
from slapos.master.text import URL_LENGTH, checked_text
from slapos.protocol.errors import Conflict, NotFound, NotReady
from slapos.protocol.instance_xml import from_instance_xml, to_instance_xml
from slapos.protocol.states import InstallationState, InstanceState
from slapos.system.clock import Clock

#: How much is kept of what a node says went wrong: the end of it.
MESSAGE_LENGTH = 4000


@dataclass(frozen=True, kw_only=True)
class InstanceOrder:
    """What is asked for; `requester` is the instance that asks, None for a person."""

    title: str
    software_url: str
    software_type: str = "default"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    filters: Mapping[str, Any] = field(default_factory=dict)
    state: InstanceState = InstanceState.STARTED
    shared: bool = False
    requester: SoftwareInstance | None = None


def request_instance(
    session: Session, clock: Clock, policy: Policy, order: InstanceOrder
) -> SoftwareInstance:
    """Return the instance that is asked for: made and placed if new, changed if different.

    An identical request changes nothing. A shared instance that is to be destroyed is gone at once.
    Raises NoCapacity when it cannot be placed, NotReady when what is to be destroyed is not there.
    """
    _check(order)
    instance = find_by_title(session, order.title, order.shared, order.requester)
    state = _possible_state(order)
    if instance is None:
        if state is InstanceState.DESTROYED:
            raise NotReady(f"there is no instance {order.title!r}, so there is none to destroy")
        instance = _create(session, clock, order, state)
        _place(session, policy, instance)
        _supply(session, clock, policy, instance)
        if instance.host is not None:
            instance.host.mark_changed(clock.now())
    else:
        _change(session, clock, policy, instance, order, state)
    session.flush()
    return instance


def find_by_title(
    session: Session, title: str, shared: bool, requester: SoftwareInstance | None
) -> SoftwareInstance | None:
    """Return the instance of a title: a root, or one in the tree of the instance that asks."""
    query = select(SoftwareInstance).where(
        SoftwareInstance.title == title,
        SoftwareInstance.shared == shared,
        SoftwareInstance.is_root == (requester is None),
    )
    if requester is None:
        query = query.join(SoftwareInstance.tree).where(
            InstanceTree.title == title, InstanceTree.shared == shared
        )
    else:
        query = query.where(SoftwareInstance.tree_id == requester.tree_id)
    return session.scalar(query)


def find_by_reference(session: Session, reference: str) -> SoftwareInstance | None:
    """Return the instance of a reference, unique in this master."""
    return session.scalar(select(SoftwareInstance).where(SoftwareInstance.reference == reference))


def find_on_partition(session: Session, node: str, partition: str) -> SoftwareInstance | None:
    """Return the instance in a partition, None when it is free; NotFound when there is no such."""
    found = nodes.find_partition(session, node, partition)
    return session.scalar(select(SoftwareInstance).where(SoftwareInstance.partition_id == found.id))


def instance_on_partition(session: Session, node: str, partition: str) -> SoftwareInstance:
    """Return the instance in a partition, or raise NotFound."""
    instance = find_on_partition(session, node, partition)
    if instance is None:
        raise NotFound(f"the partition {partition!r} of the node {node!r} is free")
    return instance


def find_shared(session: Session, host: SoftwareInstance, reference: str) -> SoftwareInstance:
    """Return a shared instance on its host, or raise NotFound."""
    shared = session.scalar(
        select(SoftwareInstance).where(
            SoftwareInstance.reference == reference, SoftwareInstance.host_id == host.id
        )
    )
    if shared is None:
        raise NotFound(f"{host.reference} hosts no shared instance {reference!r}")
    return shared


def shared_on(session: Session, host: SoftwareInstance) -> Sequence[SoftwareInstance]:
    """Return the shared instances on a host, the oldest first."""
    return session.scalars(
        select(SoftwareInstance)
        .where(SoftwareInstance.host_id == host.id)
        .order_by(SoftwareInstance.id)
    ).all()


def trees(session: Session) -> Sequence[InstanceTree]:
    """Return every instance tree, the oldest first."""
    return session.scalars(select(InstanceTree).order_by(InstanceTree.id)).all()


def find_tree(session: Session, title: str) -> InstanceTree:
    """Return a tree by its title, a service before a shared instance, or raise NotFound."""
    tree = session.scalar(
        select(InstanceTree).where(InstanceTree.title == title).order_by(InstanceTree.shared)
    )
    if tree is None:
        raise NotFound(
            f"there is no service {title!r}; `slapos service list` shows which there are"
        )
    return tree


def roots(session: Session) -> Sequence[SoftwareInstance]:
    """Return the root instance of every tree, the oldest first."""
    return session.scalars(
        select(SoftwareInstance)
        .where(SoftwareInstance.is_root)
        .order_by(SoftwareInstance.tree_id)
        .options(joinedload(SoftwareInstance.tree))
    ).all()


def instances_of(session: Session, tree: InstanceTree) -> Sequence[SoftwareInstance]:
    """Return a tree's instances: the root, then the others by title."""
    return session.scalars(
        select(SoftwareInstance)
        .where(SoftwareInstance.tree_id == tree.id)
        .order_by(SoftwareInstance.is_root.desc(), SoftwareInstance.title, SoftwareInstance.id)
    ).all()


def instances_on_node(session: Session, node_id: int) -> Sequence[SoftwareInstance]:
    """Return every instance and shared instance on a node, the oldest first."""
    return session.scalars(
        select(SoftwareInstance)
        .where(SoftwareInstance.node_id == node_id)
        .order_by(SoftwareInstance.id)
    ).all()


def connections_with(session: Session, text: str) -> Sequence[Mapping[str, Any]]:
    """Return what is published by the instances that publish some text, among other things."""
    published = cast(SoftwareInstance.connection, Text)
    return session.scalars(
        select(SoftwareInstance.connection).where(published.contains(text, autoescape=True))
    ).all()


def publish(
    session: Session, clock: Clock, instance: SoftwareInstance, connection: Mapping[str, Any]
) -> bool:
    """Set what an instance publishes; a change bangs whoever requested it. Return if it changed."""
    values = as_texts(connection)
    if instance.connection == values:
        return False
    instance.connection = values
    if instance.requester is not None:
        instance.requester.mark_changed(clock.now())
    session.flush()
    return True


def rename(session: Session, clock: Clock, instance: SoftwareInstance, title: str) -> None:
    """Give an instance another title, with its tree if it is the root."""
    checked_text("a title", title, TITLE_LENGTH)
    if title == instance.title:
        return
    other = (
        session.scalar(
            select(InstanceTree).where(
                InstanceTree.title == title, InstanceTree.shared == instance.shared
            )
        )
        if instance.is_root
        else find_by_title(session, title, instance.shared, instance)
    )
    if other is not None:
        raise Conflict(f"{instance.title!r} cannot become {title!r}: that title is taken")
    instance.title = title
    renamed: Sequence[SoftwareInstance] = [instance]
    if instance.is_root:
        instance.tree.title = title
        renamed = instances_of(session, instance.tree)  # they are told the title of their root
    for each in renamed:
        _mark_changed(each, clock.now())
    session.flush()


def format_node(session: Session, clock: Clock, told: nodes.NodeFormat) -> None:
    """Make a node as it tells; instances that have other addresses now are processed again."""
    readdressed = [partition.id for partition in nodes.format_node(session, clock, told)]
    query = select(SoftwareInstance).where(SoftwareInstance.partition_id.in_(readdressed))
    for instance in session.scalars(query).all() if readdressed else ():
        for each in (instance, *shared_on(session, instance)):
            each.mark_changed(clock.now())
    session.flush()


def bang(session: Session, clock: Clock, tree: InstanceTree) -> None:
    """Have every instance of a tree processed again, under one timestamp."""
    members = instances_of(session, tree)
    now = max([clock.now(), *(member.changed_at + TICK for member in members)])
    for member in members:
        member.changed_at = now
        if member.host is not None and member.host.tree_id != tree.id:
            member.host.mark_changed(now)
    session.flush()


def bang_node(session: Session, clock: Clock, node: str) -> None:
    """Have every tree that is present on a node processed again."""
    found = nodes.find_node(session, node)
    nodes.heard_from(found, clock)
    query = select(SoftwareInstance.tree_id).where(SoftwareInstance.node_id == found.id).distinct()
    for tree in session.scalars(
        select(InstanceTree).where(InstanceTree.id.in_(query)).order_by(InstanceTree.id)
    ).all():
        bang(session, clock, tree)


def report_state(
    session: Session,
    clock: Clock,
    instance: SoftwareInstance,
    state: InstanceState,
    about: datetime | None = None,
) -> Sequence[SoftwareInstance]:
    """Take in that a node has brought an instance to a state.

    A destroyed one is forgotten, and its partition is free, once none of the instances that it
    requested are left; those are returned, and are now to be destroyed too.
    """
    _heard_from_node_of(instance, clock)
    waiting: Sequence[SoftwareInstance] = ()
    if state is InstanceState.DESTROYED:
        instance.requested_state = state
        for each in _requested_by(session, instance):
            _lower_state(session, clock, each, state)
        waiting = _requested_by(session, instance)
    instance.report(clock.now(), state, about)
    for shared in _failed_shared(session, instance):
        shared.error = ""  # the node tells again which of them fail
    if state is InstanceState.DESTROYED and not waiting:
        _forget(session, instance)
    session.flush()
    return waiting


def report_error(
    session: Session,
    clock: Clock,
    instance: SoftwareInstance,
    message: str,
    about: datetime | None = None,
) -> None:
    """Take in that a node failed with an instance."""
    _heard_from_node_of(instance, clock)
    instance.report_error(clock.now(), message[-MESSAGE_LENGTH:], about)
    session.flush()


def forwarded(session: Session) -> Sequence[ForwardedRequest]:
    """Return the requests that other masters answered, the oldest first."""
    return session.scalars(select(ForwardedRequest).order_by(ForwardedRequest.id)).all()


def remember_forwarded(session: Session, clock: Clock, title: str, master_url: str) -> None:
    """Remember that another master has an instance that was asked for here."""
    if _find_forwarded(session, title, master_url) is None:
        session.add(ForwardedRequest(title=title, master_url=master_url, created_at=clock.now()))


def forget_forwarded(session: Session, title: str, master_url: str) -> None:
    """Forget it, because that master is to destroy it."""
    found = _find_forwarded(session, title, master_url)
    if found is not None:
        session.delete(found)


def _find_forwarded(session: Session, title: str, master_url: str) -> ForwardedRequest | None:
    return session.scalar(
        select(ForwardedRequest).where(
            ForwardedRequest.title == title, ForwardedRequest.master_url == master_url
        )
    )


def as_texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they are after a way through instance XML: texts, and None for empty."""
    return dict(from_instance_xml(to_instance_xml(dict(values))))


def _check(order: InstanceOrder) -> None:
    checked_text("the title of an instance", order.title, TITLE_LENGTH)
    checked_text("the URL of a release", order.software_url, URL_LENGTH)
    checked_text("the type of an instance", order.software_type, TITLE_LENGTH)


def _possible_state(order: InstanceOrder) -> InstanceState:
    """Return the requested state, or that of the requester when it is not started itself."""
    if order.requester is None or order.state is InstanceState.DESTROYED:
        return order.state
    above = InstanceState(order.requester.requested_state)
    return order.state if above is InstanceState.STARTED else above


def _create(
    session: Session, clock: Clock, order: InstanceOrder, state: InstanceState
) -> SoftwareInstance:
    requester = order.requester
    if requester is None:
        tree = InstanceTree(title=order.title, shared=order.shared, created_at=clock.now())
    else:
        tree = requester.tree
    return SoftwareInstance(
        tree=tree,
        is_root=requester is None,
        requester=requester,
        title=order.title,
        shared=order.shared,
        software_url=order.software_url,
        software_type=order.software_type,
        requested_state=state,
        parameters=as_texts(order.parameters),
        connection={},
        filters=as_texts(order.filters),
        created_at=clock.now(),
        changed_at=clock.now(),
        error="",
    )


def _place(session: Session, policy: Policy, instance: SoftwareInstance) -> None:
    node = policy.node_for(instance)
    if instance.shared:
        instance.host = allocation.find_host(session, instance, node)
        instance.node = instance.host.node
    else:
        allocation.place(session, instance, node)
    instance.reference = _free_reference(session, policy.reference_of(instance))
    session.add(instance)


def _supply(session: Session, clock: Clock, policy: Policy, instance: SoftwareInstance) -> None:
    """Have the release on the instance's node, where the profile does so of itself."""
    if policy.supplies_on_request and not instance.shared and instance.node is not None:
        catalog.supply(
            session,
            clock,
            node=instance.node.reference,
            url=instance.software_url,
            state=InstallationState.AVAILABLE,
        )


def _free_reference(session: Session, reference: str) -> str:
    """Return the reference, with a number if another instance has it (`a_b`+`c`, `a`+`b_c`)."""
    taken = select(SoftwareInstance.id).where
    candidate, number = reference[:REFERENCE_LENGTH], 1
    while session.scalar(taken(SoftwareInstance.reference == candidate)) is not None:
        number += 1
        candidate = f"{reference}~{number}"
    return candidate


def _change(
    session: Session,
    clock: Clock,
    policy: Policy,
    instance: SoftwareInstance,
    order: InstanceOrder,
    state: InstanceState,
) -> None:
    _move(instance, order.requester)
    wanted = {
        "software_url": order.software_url,
        "software_type": order.software_type,
        "parameters": as_texts(order.parameters),
        "filters": as_texts(order.filters),
    }
    different = {name: value for name, value in wanted.items() if getattr(instance, name) != value}
    for name, value in different.items():
        setattr(instance, name, value)
    if "software_url" in different:
        _supply(session, clock, policy, instance)
    if instance.shared and state is not InstanceState.DESTROYED:
        host = instance.host
        if host is None or not allocation.may_stay(instance, host):
            if host is not None:
                host.mark_changed(clock.now())
            host = allocation.find_host(session, instance, policy.node_for(instance))
            instance.host, instance.node, instance.connection = host, host.node, {}
            host.mark_changed(clock.now())
    if state != instance.requested_state:
        _set_state(session, clock, instance, state)
    elif different:
        _mark_changed(instance, clock.now())


def _move(instance: SoftwareInstance, requester: SoftwareInstance | None) -> None:
    """Make `requester` the one who is told of changes, unless it was requested by the instance."""
    if requester is None or instance.requester_id == requester.id:
        return
    above: SoftwareInstance | None = requester
    while above is not None:
        if above.id == instance.id:
            raise Conflict(
                f"{requester.title!r} cannot request {instance.title!r}, which has requested it"
            )
        above = above.requester
    instance.requester = requester


def _set_state(
    session: Session, clock: Clock, instance: SoftwareInstance, state: InstanceState
) -> None:
    """Set what is wanted; what is stopped or destroyed takes those below along."""
    instance.requested_state = state
    if instance.reported_state == InstanceState.DESTROYED:
        instance.reported_state = None
    _mark_changed(instance, clock.now())
    if state is InstanceState.STARTED:
        return  # those below are started when their requester asks for them again
    for each in _requested_by(session, instance):
        _lower_state(session, clock, each, state)
    if instance.shared and state is InstanceState.DESTROYED:
        _forget(session, instance)


def _lower_state(
    session: Session, clock: Clock, instance: SoftwareInstance, state: InstanceState
) -> None:
    order = list(InstanceState)
    if order.index(InstanceState(instance.requested_state)) < order.index(state):
        _set_state(session, clock, instance, state)


def _requested_by(session: Session, instance: SoftwareInstance) -> Sequence[SoftwareInstance]:
    """Return those that an instance requested; for a root, every other one of its tree."""
    query = select(SoftwareInstance).where(SoftwareInstance.id != instance.id)
    query = (
        query.where(SoftwareInstance.tree_id == instance.tree_id)
        if instance.is_root
        else query.where(SoftwareInstance.requester_id == instance.id)
    )
    return session.scalars(query.order_by(SoftwareInstance.title)).all()


def _failed_shared(session: Session, host: SoftwareInstance) -> Sequence[SoftwareInstance]:
    query = select(SoftwareInstance).where(
        SoftwareInstance.host_id == host.id, SoftwareInstance.error != ""
    )
    return session.scalars(query).all()


def _forget(session: Session, instance: SoftwareInstance) -> None:
    """Remove an instance that is gone, and whoever above only waited for it."""
    for shared in shared_on(session, instance):  # they have to find another host
        shared.host, shared.node, shared.connection = None, None, {}
    partition, requester, tree = instance.partition, instance.requester, instance.tree
    session.delete(instance)
    session.flush()
    if partition is not None:
        nodes.free_partition(session, partition)
    if instance.is_root:
        session.delete(tree)
        session.flush()
        return
    for above in (requester, _root_of(session, tree)):
        if (
            above is not None
            and above.reported_state == InstanceState.DESTROYED
            and not _requested_by(session, above)
        ):
            _forget(session, above)
            return


def _root_of(session: Session, tree: InstanceTree) -> SoftwareInstance | None:
    return session.scalar(
        select(SoftwareInstance).where(
            SoftwareInstance.tree_id == tree.id, SoftwareInstance.is_root
        )
    )


def _mark_changed(instance: SoftwareInstance, now: datetime) -> None:
    """Tell the node that has to act: a shared instance is the business of its host."""
    instance.mark_changed(now)
    if instance.host is not None:
        instance.host.mark_changed(now)


def _heard_from_node_of(instance: SoftwareInstance, clock: Clock) -> None:
    if instance.node is not None:
        nodes.heard_from(instance.node, clock)
