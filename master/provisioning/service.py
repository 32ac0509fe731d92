"""What can be done with instances. Nothing here knows of HTTP, and nothing here commits."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from slapos.master.identity.model import LOCAL_TENANT, Tenant
from slapos.master.identity.rights import Action, require
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes import service as nodes
from slapos.master.nodes.exchange import heard_from
from slapos.master.provisioning import lifecycle, lookup, placement, waiting, writing
from slapos.master.provisioning.model import (
    TICK,
    TITLE_LENGTH,
    InstanceTree,
    SoftwareInstance,
)
from slapos.master.provisioning.policy import Policy
from slapos.master.text import URL_LENGTH, checked_text
from slapos.protocol.errors import Conflict, NotReady
from slapos.protocol.instance_xml import from_instance_xml, to_instance_xml
from slapos.protocol.states import InstanceState
from slapos.system.clock import Clock


@dataclass(frozen=True, kw_only=True)
class InstanceOrder:
    """What is asked for; `requester` is the instance that asks, None for a person.

    A person's order belongs to `tenant`, an instance's to what its tree belongs to.
    """

    title: str
    software_url: str
    software_type: str = "default"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    filters: Mapping[str, Any] = field(default_factory=dict)
    state: InstanceState = InstanceState.STARTED
    shared: bool = False
    requester: SoftwareInstance | None = None
    tenant: Tenant = LOCAL_TENANT


def request_instance(
    session: Session, clock: Clock, policy: Policy, order: InstanceOrder
) -> SoftwareInstance:
    """Return the instance that is asked for: made and placed if new, changed if different.

    An identical request changes nothing. A shared instance that is to be destroyed is gone at once.
    Raises NoCapacity when it cannot be placed and must not wait, NotReady when what is to be
    destroyed is not there.
    """
    instance = lookup.find_by_title(
        session,
        order.title,
        order.shared,
        order.requester,
        order.tenant,
        either_kind=policy.a_title_has_one_tree,
    )
    _require(session, order, instance)
    if instance is not None and instance.shared != order.shared:
        raise Conflict(_other_kind(instance))
    if instance is None:
        return make(session, clock, policy, order)
    _check(order)
    apply(session, clock, policy, instance, order)
    return instance


def make(session: Session, clock: Clock, policy: Policy, order: InstanceOrder) -> SoftwareInstance:
    """Make and place what is ordered and is not there; the caller has been asked if she may."""
    _check(order)
    state = _possible_state(order)
    if order.state is InstanceState.DESTROYED:
        raise NotReady(f"there is no instance {order.title!r}, so there is none to destroy")
    if state is InstanceState.DESTROYED:
        raise NotReady(f"{order.title!r} is not made: whoever asks is to be destroyed itself")
    instance = _create(clock, order, state)
    if order.requester is None:
        instance.tree.reference = policy.tree_reference(session)
    policy.place(session, clock, instance)
    instance.reference = policy.reference_of(session, instance)
    has_release = writing.write(session, instance)
    if instance.partition_id is not None and not has_release:
        policy.supply(session, clock, instance)
    if instance.host is not None:
        instance.host.mark_changed(clock.now())
    session.flush()
    if instance.waiting_key:
        waiting.look_again(session, instance)
    return instance


def apply(
    session: Session, clock: Clock, policy: Policy, instance: SoftwareInstance, order: InstanceOrder
) -> None:
    """Have an instance as an order says; the caller has been asked whether she may."""
    _change(session, clock, policy, instance, order, _possible_state(order))
    session.flush()
    if instance.waiting_key:
        waiting.look_again(session, instance)


def publish(
    session: Session, clock: Clock, instance: SoftwareInstance, connection: Mapping[str, Any]
) -> bool:
    """Set what an instance publishes; a change bangs whoever requested it. Return if it changed."""
    require(session, Action.CHANGE, instance)
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
    require(session, Action.CHANGE, instance)
    checked_text("a title", title, TITLE_LENGTH)
    if title == instance.title:
        return
    other = (
        session.scalar(
            select(InstanceTree).where(
                InstanceTree.project_id == instance.tree.project_id,
                InstanceTree.owner_id == instance.tree.owner_id,
                InstanceTree.title == title,
                # A tree with a reference is the only one of its title.
                or_(InstanceTree.shared == instance.shared, InstanceTree.reference.is_not(None)),
            )
        )
        if instance.is_root
        else lookup.find_by_title(session, title, instance.shared, instance)
    )
    if other is not None:
        raise Conflict(f"{instance.title!r} cannot become {title!r}: that title is taken")
    instance.title = title
    renamed: Sequence[SoftwareInstance] = [instance]
    if instance.is_root:
        instance.tree.title = title
        # All of them are told the title of their root.
        renamed = lookup.instances_of(session, instance.tree)
    for each in renamed:
        lifecycle.mark_changed(each, clock.now())
    session.flush()


def format_node(session: Session, clock: Clock, told: nodes.NodeFormat) -> None:
    """Make a node as it tells; instances that have other addresses now are processed again."""
    readdressed = [partition.id for partition in nodes.format_node(session, clock, told)]
    placement.has_vacancy(session, nodes.find_node(session, told.reference).id)
    query = select(SoftwareInstance).where(SoftwareInstance.partition_id.in_(readdressed))
    for instance in session.scalars(query).all() if readdressed else ():
        for each in (instance, *lookup.shared_on(session, instance)):
            each.mark_changed(clock.now())
    session.flush()


def bang(session: Session, clock: Clock, tree: InstanceTree) -> None:
    """Have every instance of a tree processed again, under one timestamp."""
    require(session, Action.CHANGE, tree)
    _bang(session, clock, tree)


def _bang(session: Session, clock: Clock, tree: InstanceTree) -> None:
    members = lookup.instances_of(session, tree)
    if tree.reference is not None:
        # Who is to be processed anyway need not be told so again, be it by a storm of bangs.
        members = [each for each in members if (each.host or each).is_settled]
        if not members:
            return
    now = max([clock.now(), *(member.changed_at + TICK for member in members)])
    for member in members:
        member.changed_at = now
        if member.host is not None and member.host.tree_id != tree.id:
            member.host.mark_changed(now)
    session.flush()


def bang_node(session: Session, clock: Clock, node: str) -> None:
    """Have every tree that is present on a node processed again."""
    found = nodes.find_node(session, node)
    require(session, Action.REPORT, found)
    heard_from(session, found.id, clock.now())
    query = select(SoftwareInstance.tree_id).where(SoftwareInstance.node_id == found.id).distinct()
    for tree in session.scalars(
        select(InstanceTree).where(InstanceTree.id.in_(query)).order_by(InstanceTree.id)
    ).all():
        _bang(session, clock, tree)


def as_texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they are after a way through instance XML: texts, and None for empty."""
    return dict(from_instance_xml(to_instance_xml(dict(values)))) if values else {}


def _other_kind(present: SoftwareInstance) -> str:
    kinds = ("a service of its own", "a shared instance")
    is_one, asked = kinds if not present.shared else kinds[::-1]
    return (
        f"{present.title!r} is {is_one}, and a request cannot make it {asked}: request that under "
        "another title, or have this one destroyed first"
    )


def _check(order: InstanceOrder) -> None:
    checked_text("the title of an instance", order.title, TITLE_LENGTH)
    checked_text("the URL of a release", order.software_url, URL_LENGTH)
    checked_text("the type of an instance", order.software_type, TITLE_LENGTH)


def _require(session: Session, order: InstanceOrder, instance: SoftwareInstance | None) -> None:
    """Raise unless the caller may ask for it: who may change an instance may ask in its name."""
    if order.requester is not None:
        require(session, Action.CHANGE, order.requester)
    elif instance is None:
        # It is nobody's yet: to own it is no reason to be allowed to make it.
        tenant = order.tenant
        require(session, Action.CREATE, Subject(Kind.TREE, order.title, tenant.project_id))
    else:
        destroys = order.state is InstanceState.DESTROYED
        require(session, Action.DESTROY if destroys else Action.CHANGE, instance.tree)


def _possible_state(order: InstanceOrder) -> InstanceState:
    """Return the requested state, or that of the requester when it is not started itself."""
    if order.requester is None or order.state is InstanceState.DESTROYED:
        return order.state
    above = InstanceState(order.requester.requested_state)
    return order.state if above is InstanceState.STARTED else above


def _create(clock: Clock, order: InstanceOrder, state: InstanceState) -> SoftwareInstance:
    requester = order.requester
    if requester is None:
        tree = InstanceTree(
            title=order.title,
            shared=order.shared,
            project_id=order.tenant.project_id,
            owner_id=order.tenant.owner_id,
            created_at=clock.now(),
        )
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


def _change(
    session: Session,
    clock: Clock,
    policy: Policy,
    instance: SoftwareInstance,
    order: InstanceOrder,
    state: InstanceState,
) -> None:
    _move(instance, order.requester)
    if instance.orphaned_at is not None:
        instance.orphaned_at = None
    wanted = {
        "software_url": order.software_url,
        "software_type": order.software_type,
        "parameters": as_texts(order.parameters),
        "filters": as_texts(order.filters),
    }
    different = {name: value for name, value in wanted.items() if getattr(instance, name) != value}
    for name, value in different.items():
        setattr(instance, name, value)
    policy.check_change(session, clock, instance, different.keys())
    if "software_url" in different and policy.supplies_on_request and not instance.shared:
        policy.supply(session, clock, instance)
    if state is not InstanceState.DESTROYED:
        if instance.shared:
            _keep_hosted(session, clock, policy, instance, different.keys())
        elif different and not instance.is_placed:
            policy.place(session, clock, instance)
    if state != instance.requested_state:
        lifecycle.set_state(session, clock, instance, state)
    elif different:
        lifecycle.mark_changed(instance, clock.now())


def _keep_hosted(
    session: Session,
    clock: Clock,
    policy: Policy,
    instance: SoftwareInstance,
    changed: Collection[str],
) -> None:
    """Find a host for a shared instance that has none, or one that is not as asked any more."""
    host = instance.host
    if host is None and instance.is_placed:
        return  # another master looks for its host
    if host is not None and policy.may_stay(instance, host):
        return
    if instance.waiting_key and not changed:
        return  # it waits for what it has waited for
    if host is not None:
        host.mark_changed(clock.now())
        instance.host = instance.node = None
    policy.place(session, clock, instance)
    instance.connection = {}
    if instance.host is not None:
        instance.host.mark_changed(clock.now())


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
