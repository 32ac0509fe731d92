"""What people and their programs do with services and instances, by reference. Nothing commits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from slapos.master.database import constant
from slapos.master.identity.caller import CallerKind, caller_of
from slapos.master.identity.model import Person, Project, Tenant
from slapos.master.identity.rights import Action, not_there, require, visible
from slapos.master.identity.service import find_project
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes.model import ComputeNode
from slapos.master.provisioning import lifecycle, lookup, service
from slapos.master.provisioning.model import InstanceTree, SoftwareInstance
from slapos.master.provisioning.policy import Policy
from slapos.master.provisioning.service import InstanceOrder
from slapos.protocol.errors import Conflict, Forbidden, NotFound
from slapos.protocol.states import InstanceState
from slapos.system.clock import Clock

BY_REFERENCE = select(InstanceTree).where(InstanceTree.reference == bindparam("key"))
BY_TITLE = (
    select(InstanceTree)
    .where(InstanceTree.owner_id == bindparam("owner"), InstanceTree.title == bindparam("key"))
    .order_by(InstanceTree.shared, InstanceTree.id)
    .limit(1)
)


@dataclass(frozen=True, kw_only=True)
class TreeFilter:
    """Which services are looked for; None: any."""

    project: str | None = None
    owner: str | None = None
    title: str | None = None


@dataclass(frozen=True, kw_only=True)
class InstanceFilter:
    """Which instances are looked for; None: any. `waits` is whether one waits for a place."""

    project: str | None = None
    tree: str | None = None
    node: str | None = None
    state: InstanceState | None = None
    waits: bool | None = None


def find_tree(session: Session, key: str) -> InstanceTree:
    """Return a tree by its reference or, of the caller's own, by its title; or raise NotFound.

    In the local profile trees are known by their titles.
    """
    caller = caller_of(session)
    if caller.kind is CallerKind.LOCAL:
        return lookup.find_tree(session, key)
    tree = session.scalar(BY_REFERENCE, {"key": key})
    if tree is None and caller.kind is CallerKind.PERSON:
        tree = session.scalar(BY_TITLE, {"key": key, "owner": caller.id})
    if tree is None:
        raise not_there(Subject(Kind.TREE, key))
    require(session, Action.SEE, tree)
    return tree


def matching_trees(session: Session, wanted: TreeFilter) -> Select[int]:
    """Return a SELECT of the ids of the trees that the caller may see."""
    statement = visible(
        session,
        select(InstanceTree.id),
        Kind.TREE,
        project=InstanceTree.project_id,
        owner=InstanceTree.owner_id,
        tree=InstanceTree.id,
    )
    if wanted.project is not None:
        statement = statement.where(InstanceTree.project_id == _project_id(wanted.project))
    if wanted.owner is not None:
        owner = select(Person.id).where(Person.reference == wanted.owner).scalar_subquery()
        statement = statement.where(InstanceTree.owner_id == owner)
    if wanted.title is not None:
        statement = statement.where(InstanceTree.title == wanted.title)
    return statement


def find_instance(session: Session, reference: str, *, lock: bool = False) -> SoftwareInstance:
    """Return an instance that the caller may see, or raise NotFound."""
    statement = select(SoftwareInstance).where(SoftwareInstance.reference == reference)
    if lock:
        statement = statement.with_for_update(of=SoftwareInstance)
    instance = session.scalar(statement)
    if instance is None:
        raise not_there(Subject(Kind.INSTANCE, reference))
    require(session, Action.SEE, instance)
    return instance


def matching_instances(session: Session, wanted: InstanceFilter) -> Select[SoftwareInstance]:
    """Return a SELECT of the instances that the caller may see."""
    statement = visible(
        session,
        select(SoftwareInstance).join(InstanceTree, InstanceTree.id == SoftwareInstance.tree_id),
        Kind.INSTANCE,
        project=InstanceTree.project_id,
        owner=InstanceTree.owner_id,
        node=SoftwareInstance.node_id,
        tree=SoftwareInstance.tree_id,
        host=SoftwareInstance.host_id,
    )
    if wanted.project is not None:
        statement = statement.where(InstanceTree.project_id == _project_id(wanted.project))
    if wanted.tree is not None:
        statement = statement.where(InstanceTree.reference == wanted.tree)
    if wanted.node is not None:
        node = select(ComputeNode.id).where(ComputeNode.reference == wanted.node)
        statement = statement.where(SoftwareInstance.node_id == node.scalar_subquery())
    if wanted.state is not None:
        state = SoftwareInstance.requested_state
        statement = statement.where(state == constant(wanted.state.value))
        if wanted.state is not InstanceState.STARTED:  # there is an index of these alone
            statement = statement.where(state != constant(InstanceState.STARTED.value))
    if wanted.waits is not None:
        waits = SoftwareInstance.waiting_key != constant("")
        statement = statement.where(waits if wanted.waits else ~waits)
    return statement


def order(
    session: Session, clock: Clock, policy: Policy, project: str, wanted: InstanceOrder
) -> InstanceTree:
    """Order a service for the caller in a project: Conflict when she has one of that title."""
    caller = caller_of(session)
    found = find_project(session, project)
    if caller.kind is not CallerKind.PERSON or caller.id is None:
        raise Forbidden(f"{caller.name} is no person: only people order services")
    require(session, Action.CREATE, Subject(Kind.TREE, wanted.title, found.id))
    found.check_active()
    tenant = Tenant(found.id, caller.id)
    present = lookup.find_by_title(
        session,
        wanted.title,
        wanted.shared,
        None,
        tenant,
        either_kind=policy.a_title_has_one_tree,
    )
    if present is not None:
        raise Conflict(
            f"you have a service {wanted.title!r} in {project} already, "
            f"{present.tree.reference}; give another title, or change that one"
        )
    made = InstanceOrder(**{**vars(wanted), "tenant": tenant})
    tree = service.make(session, clock, policy, made).tree
    set_committed_value(tree, "project", found)  # its reference is told
    return tree


def change(
    session: Session,
    clock: Clock,
    policy: Policy,
    instance: SoftwareInstance,
    wanted: Mapping[str, Any],
) -> None:
    """Change an instance: `title`, `parameters`, `filters`, `state`; what is left out stays."""
    require(session, Action.CHANGE, instance)
    if wanted.get("state") is InstanceState.DESTROYED:
        require(session, Action.DESTROY, instance)
    if "title" in wanted:
        service.rename(session, clock, instance, wanted["title"])
    if instance.is_to_go and wanted.keys() - {"title"}:
        if wanted.get("state") is InstanceState.DESTROYED:
            return
        raise Conflict(f"{instance.title!r} is to be destroyed; nothing else can be had of it")
    above = instance.requester
    if (
        wanted.get("state") is InstanceState.STARTED
        and above is not None
        and above.requested_state != InstanceState.STARTED
    ):
        raise Conflict(
            f"{instance.title!r} cannot be started: {above.title!r}, which asked for it, is to be "
            f"{above.requested_state}; start that one first"
        )
    service.apply(
        session,
        clock,
        policy,
        instance,
        InstanceOrder(
            title=instance.title,
            software_url=instance.software_url,
            software_type=instance.software_type,
            parameters=wanted.get("parameters", instance.parameters),
            filters=wanted.get("filters", instance.filters),
            state=wanted.get("state", InstanceState(instance.requested_state)),
            shared=instance.shared,
            requester=instance.requester,
            tenant=instance.tree.tenant,
        ),
    )


def process_again(session: Session, clock: Clock, instance: SoftwareInstance) -> None:
    """Have an instance processed again by its node."""
    require(session, Action.CHANGE, instance)
    lifecycle.mark_changed(instance, clock.now())
    session.flush()


def root_of(session: Session, tree: InstanceTree) -> SoftwareInstance:
    """Return the root instance of a tree, or raise NotFound when it is going."""
    root = lookup.root_of(session, tree)
    if root is None:
        raise NotFound(f"the service {tree.title!r} has no root instance")
    return root


def _project_id(reference: str) -> Any:
    return select(Project.id).where(Project.reference == reference).scalar_subquery()
