"""Finding instances and instance trees."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Text, bindparam, cast, select
from sqlalchemy.orm import Session, joinedload
from sqlalchemy.orm.attributes import set_committed_value

from slapos.master.identity.model import LOCAL_TENANT, Tenant
from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import ComputePartition
from slapos.master.provisioning.model import InstanceTree, SoftwareInstance
from slapos.protocol.errors import NotFound

# Statements of each request are made once: to make one takes longer than to run it.
ROOT_OF_EITHER_KIND = (
    select(SoftwareInstance.id)
    .join(SoftwareInstance.tree)
    .where(
        InstanceTree.project_id == bindparam("project_id"),
        InstanceTree.owner_id == bindparam("owner_id"),
        InstanceTree.title == bindparam("title"),
        SoftwareInstance.is_root,
    )
)
ROOT_BY_TITLE = ROOT_OF_EITHER_KIND.where(InstanceTree.shared == bindparam("shared"))
CHILD_BY_TITLE = select(SoftwareInstance).where(
    SoftwareInstance.tree_id == bindparam("tree_id"),
    SoftwareInstance.title == bindparam("title"),
    SoftwareInstance.shared == bindparam("shared"),
    ~SoftwareInstance.is_root,
)
OF_TREE = (
    select(SoftwareInstance)
    .where(SoftwareInstance.tree_id == bindparam("tree_id"))
    .order_by(SoftwareInstance.is_root.desc(), SoftwareInstance.title, SoftwareInstance.id)
)
PLACE = (
    select(ComputePartition)
    .where(ComputePartition.id == bindparam("id"))
    .options(joinedload(ComputePartition.node), joinedload(ComputePartition.addresses))
)
ON_PARTITION = select(SoftwareInstance).where(
    SoftwareInstance.partition_id == bindparam("partition_id")
)
IS_REFERENCE_TAKEN = select(SoftwareInstance.id).where(
    SoftwareInstance.reference == bindparam("reference")
)


def find_by_title(
    session: Session,
    title: str,
    shared: bool,
    requester: SoftwareInstance | None,
    tenant: Tenant = LOCAL_TENANT,
    *,
    either_kind: bool = False,
) -> SoftwareInstance | None:
    """Return the instance of a title: a tenant's root, or one in the tree of who asks.

    With `either_kind`, a root is found whether or not it is shared: where a title has one tree.
    """
    sought: dict[str, Any] = {"title": title, "shared": shared}
    if requester is None:
        # What people order is mostly new: to look for it is cheaper than to load it.
        statement = ROOT_OF_EITHER_KIND if either_kind else ROOT_BY_TITLE
        root_id = session.connection().execute(statement, sought | vars(tenant)).scalar()
        return None if root_id is None else session.get(SoftwareInstance, root_id)
    return session.scalar(CHILD_BY_TITLE, sought | {"tree_id": requester.tree_id})


def find_by_reference(session: Session, reference: str) -> SoftwareInstance | None:
    """Return the instance of a reference, unique in this master."""
    return session.scalar(select(SoftwareInstance).where(SoftwareInstance.reference == reference))


def is_reference_taken(session: Session, reference: str) -> bool:
    """Return whether an instance has this reference."""
    return session.scalar(IS_REFERENCE_TAKEN, {"reference": reference}) is not None


def is_child_title_taken(session: Session, tree_id: int, title: str) -> bool:
    """Return whether an instance of a tree, not the root nor shared, has this title."""
    sought: dict[str, Any] = {"tree_id": tree_id, "title": title, "shared": False}
    return session.scalar(CHILD_BY_TITLE, sought) is not None


def find_on_partition(session: Session, node: str, partition: str) -> SoftwareInstance | None:
    """Return the instance in a partition, None when it is free; NotFound when there is no such."""
    found = nodes.find_partition(session, node, partition)
    return session.scalar(ON_PARTITION, {"partition_id": found.id})


def instance_on_partition(session: Session, node: str, partition: str) -> SoftwareInstance:
    """Return the instance in a partition, or raise NotFound."""
    instance = find_on_partition(session, node, partition)
    if instance is None:
        raise NotFound(f"the partition {partition!r} of the node {node!r} is free")
    return instance


def load_place(session: Session, instance: SoftwareInstance) -> None:
    """Have an instance know its partition, with addresses and node, if it has one; at once."""
    if instance.partition_id is not None and "partition" not in vars(instance):
        place = session.scalars(PLACE, {"id": instance.partition_id}).unique().one()
        set_committed_value(instance, "partition", place)
        set_committed_value(instance, "node", place.node)


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


def trees_by_id(session: Session, ids: Collection[int]) -> Mapping[int, InstanceTree]:
    """Return trees by their ids, with their projects and owners."""
    query = (
        select(InstanceTree)
        .where(InstanceTree.id.in_(ids))
        .options(joinedload(InstanceTree.project), joinedload(InstanceTree.owner))
    )
    return {tree.id: tree for tree in session.scalars(query)}


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


def instances_by_tree(session: Session, tree_ids: Collection[int]) -> Sequence[SoftwareInstance]:
    """Return the instances of trees: of the oldest tree first, each tree's as `instances_of`."""
    return session.scalars(
        select(SoftwareInstance)
        .where(SoftwareInstance.tree_id.in_(tree_ids))
        .order_by(
            SoftwareInstance.tree_id,
            SoftwareInstance.is_root.desc(),
            SoftwareInstance.title,
            SoftwareInstance.id,
        )
    ).all()


def instances_of(session: Session, tree: InstanceTree) -> Sequence[SoftwareInstance]:
    """Return a tree's instances: the root, then the others by title."""
    return session.scalars(OF_TREE, {"tree_id": tree.id}).all()


def instances_on_node(session: Session, node_id: int) -> Sequence[SoftwareInstance]:
    """Return every instance and shared instance on a node, the oldest first."""
    return session.scalars(
        select(SoftwareInstance)
        .where(SoftwareInstance.node_id == node_id)
        .order_by(SoftwareInstance.id)
    ).all()


def publishing(session: Session, text: str) -> Sequence[SoftwareInstance]:
    """Return the instances that publish some text, among other things."""
    published = cast(SoftwareInstance.connection, Text)
    return session.scalars(
        select(SoftwareInstance)
        .where(published.contains(text, autoescape=True))
        .options(joinedload(SoftwareInstance.tree))
    ).all()


def requested_by(session: Session, instance: SoftwareInstance) -> Sequence[SoftwareInstance]:
    """Return those that an instance requested; for a root, every other one of its tree."""
    query = select(SoftwareInstance).where(SoftwareInstance.id != instance.id)
    query = (
        query.where(SoftwareInstance.tree_id == instance.tree_id)
        if instance.is_root
        else query.where(SoftwareInstance.requester_id == instance.id)
    )
    return session.scalars(query.order_by(SoftwareInstance.title)).all()


def requested_directly_by(
    session: Session, instance: SoftwareInstance
) -> Sequence[SoftwareInstance]:
    """Return those that an instance itself asked for."""
    query = select(SoftwareInstance).where(SoftwareInstance.requester_id == instance.id)
    return session.scalars(query.order_by(SoftwareInstance.id)).all()


def failed_shared(session: Session, host: SoftwareInstance) -> Sequence[SoftwareInstance]:
    """Return the shared instances on a host of which the node said that they failed."""
    query = select(SoftwareInstance).where(
        SoftwareInstance.host_id == host.id, SoftwareInstance.error != ""
    )
    return session.scalars(query).all()


def root_of(session: Session, tree: InstanceTree) -> SoftwareInstance | None:
    """Return the root instance of a tree."""
    return session.scalar(
        select(SoftwareInstance).where(
            SoftwareInstance.tree_id == tree.id, SoftwareInstance.is_root
        )
    )
