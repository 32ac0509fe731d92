"""Who asks for an instance over SLAP, and whose it will be: what differs between the profiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flask import current_app
from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from slapos.master.catalog.model import ProductState, SoftwareProduct, SoftwareRelease
from slapos.master.identity.caller import Caller, CallerKind, caller_of
from slapos.master.identity.model import LOCAL_TENANT, Project, ProjectState, Tenant
from slapos.master.identity.rights import Action, may, require
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import ComputeNode, ComputerNetwork
from slapos.master.provisioning import lookup
from slapos.master.provisioning.model import InstanceTree, SoftwareInstance
from slapos.protocol.errors import Forbidden, InvalidRequest, NotFound
from slapos.system.clock import Clock

#: Where an application has its Asking.
ASKING = "slapos.asking"
#: How many projects an error message names.
NAMED_PROJECTS = 10


@dataclass(frozen=True)
class Place:
    """A node and a partition, as a client names them."""

    node: str
    partition: str


class Asking(Protocol):
    """What a profile makes of those who ask."""

    def requester(
        self, session: Session, header: Place | None, fields: Place | None
    ) -> SoftwareInstance | None:
        """Return the instance that asks, None for a person.

        `header` is what `Authorization: X-SlapPartition` names, `fields` what the form names.
        """
        ...

    def tenant(
        self, session: Session, project: str | None, url: str, filters: Mapping[str, Any]
    ) -> Tenant:
        """Return whose a person's order is; `project` is the one that the request names."""
        ...

    def find_tree(self, session: Session, title: str) -> InstanceTree:
        """Return the caller's tree of a title, or raise NotFound."""
        ...

    def trees(self, session: Session) -> Sequence[InstanceTree]:
        """Return the caller's trees, the oldest first."""
        ...

    def roots(self, session: Session) -> Sequence[SoftwareInstance]:
        """Return the root instances of the caller's trees, the oldest first."""
        ...

    def request_node(
        self, session: Session, clock: Clock, title: str, project: str | None
    ) -> ComputeNode:
        """Return the node of a title, made if it was not there."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether instances go by their titles, and other masters may be asked (slapproxy)."""
        ...


def asking() -> Asking:
    """Return what this application makes of those who ask."""
    found: Asking = current_app.extensions[ASKING]
    return found


class LocalAsking:
    """Everybody is the local user, and a partition is whoever says so, as with slapproxy."""

    is_local = True

    def requester(
        self, session: Session, header: Place | None, fields: Place | None
    ) -> SoftwareInstance | None:
        """Believe the header, then the form; a free partition asks for its machine's user."""
        if header is not None:
            try:
                return lookup.find_on_partition(session, header.node, header.partition)
            except NotFound as error:
                raise InvalidRequest(
                    "No partition matching the authorization header: "
                    f"({header.node} / {header.partition})"
                ) from error
        if fields is None:
            return None
        return lookup.find_on_partition(session, fields.node, fields.partition)

    def tenant(
        self, session: Session, project: str | None, url: str, filters: Mapping[str, Any]
    ) -> Tenant:
        """Return the only one that there is."""
        return LOCAL_TENANT

    def find_tree(self, session: Session, title: str) -> InstanceTree:
        """Return the tree of a title."""
        return lookup.find_tree(session, title)

    def trees(self, session: Session) -> Sequence[InstanceTree]:
        """Return all of them."""
        return lookup.trees(session)

    def roots(self, session: Session) -> Sequence[SoftwareInstance]:
        """Return all of them."""
        return lookup.roots(session)

    def request_node(
        self, session: Session, clock: Clock, title: str, project: str | None
    ) -> ComputeNode:
        """Return the node whose reference is the title."""
        return nodes.ensure_node(session, clock, title)


class FullAsking:
    """Who asks is said by a certificate, a token or a session, never by the request."""

    is_local = False

    def requester(
        self, session: Session, header: Place | None, fields: Place | None
    ) -> SoftwareInstance | None:
        """Return the caller, when it is an instance, or the instance that a caller acts for.

        A node may ask for the instances that it holds, and a person for those that she may change;
        an instance for no other.
        """
        caller = caller_of(session)
        named = fields or header
        if named is None or (caller.kind is CallerKind.PERSON and header is not None):
            return _instance_of(session, caller)
        instance = lookup.instance_on_partition(session, named.node, named.partition)
        if caller.kind is CallerKind.INSTANCE and instance.id != caller.id:
            raise Forbidden(f"{caller.name} is not the instance in {named.node} {named.partition}")
        require(session, Action.CHANGE, instance)
        return instance

    def tenant(
        self, session: Session, project: str | None, url: str, filters: Mapping[str, Any]
    ) -> Tenant:
        """Return the person who asks, and the project that the request means.

        That is the one it names (by its field, or the filter project_guid), else that of the node
        or the network that its filters name, else the only one in which the person may order, else
        the only one of those that offers the release (slap-master.md §1.3).
        """
        caller = caller_of(session)
        if caller.kind is not CallerKind.PERSON or caller.id is None:
            raise Forbidden(f"{caller.name} is no person: only people order services")
        named = project or filters.get("project_guid")
        for name, statement in _PROJECT_OF.items():
            if name in filters and not named:
                found = session.scalar(statement, {"reference": str(filters[name])})
                if found is not None and _may_create(caller, Kind.TREE, found):
                    return Tenant(found, caller.id)
        found = _project_for(session, caller, Kind.TREE, str(named) if named else None, url)
        return Tenant(found, caller.id)

    def find_tree(self, session: Session, title: str) -> InstanceTree:
        """Return one that the caller owns, or is an instance of; a service before a shared one."""
        statement = _own_trees(session).where(InstanceTree.title == title)
        tree = session.scalar(statement.order_by(InstanceTree.shared, InstanceTree.id))
        if tree is None:
            raise NotFound(
                f"there is no service {title!r}; `slapos service list` shows which there are"
            )
        return tree

    def trees(self, session: Session) -> Sequence[InstanceTree]:
        """Return those that the caller owns, or is an instance of."""
        return session.scalars(_own_trees(session).order_by(InstanceTree.id)).all()

    def roots(self, session: Session) -> Sequence[SoftwareInstance]:
        """Return those of the trees that the caller owns, or is an instance of."""
        mine = _own_trees(session).with_only_columns(InstanceTree.id)
        return session.scalars(
            select(SoftwareInstance)
            .where(SoftwareInstance.is_root, SoftwareInstance.tree_id.in_(mine))
            .order_by(SoftwareInstance.tree_id)
        ).all()

    def request_node(
        self, session: Session, clock: Clock, title: str, project: str | None
    ) -> ComputeNode:
        """Return the node of a title in the project that is named, or the caller's only one."""
        project_id = _project_for(session, caller_of(session), Kind.NODE, project)
        node = session.scalar(
            select(ComputeNode)
            .where(
                ComputeNode.project_id == project_id,
                ComputeNode.title == title,
                ~ComputeNode.is_remote,
            )
            .order_by(ComputeNode.id)
            .limit(1)
        )
        return node or nodes.create(session, clock, project_id, title)


def _own_trees(session: Session) -> Select[InstanceTree]:
    caller = caller_of(session)
    if caller.kind is CallerKind.INSTANCE:
        return select(InstanceTree).where(InstanceTree.id == caller.tree_id)
    owner = caller.id if caller.kind is CallerKind.PERSON else None
    return select(InstanceTree).where(InstanceTree.owner_id == owner)


_PROJECT_OF: dict[str, Select[int]] = {
    "computer_guid": select(ComputeNode.project_id).where(
        ComputeNode.reference == bindparam("reference")
    ),
    "network_guid": select(ComputerNetwork.project_id).where(
        ComputerNetwork.reference == bindparam("reference")
    ),
}
_BY_REFERENCE = select(Project.id).where(Project.reference == bindparam("reference"))
_ACTIVE = select(Project.id, Project.reference).where(Project.state == ProjectState.ACTIVE)
_OFFERS = (
    select(SoftwareProduct.project_id)
    .join(SoftwareRelease)
    .where(SoftwareRelease.url == bindparam("url"), SoftwareProduct.state == ProductState.PUBLISHED)
    .distinct()
)


def _instance_of(session: Session, caller: Caller) -> SoftwareInstance | None:
    if caller.kind is CallerKind.INSTANCE:
        return session.get(SoftwareInstance, caller.id)
    if caller.kind is CallerKind.NODE:
        raise Forbidden(
            f"{caller.name} is a node: it can ask only for an instance that it holds, which the "
            "fields computer_id and computer_partition_id name"
        )
    return None


def _may_create(caller: Caller, kind: Kind, project_id: int) -> bool:
    return may(caller, Action.CREATE, Subject(kind, "", project_id))


def _project_for(
    session: Session, caller: Caller, kind: Kind, named: str | None, url: str | None = None
) -> int:
    """Return the id of the project in which a caller wants to make something."""
    if not named:
        return _only_project(session, caller, kind, url)
    found = session.scalar(_BY_REFERENCE, {"reference": named})
    if found is None or not _may_create(caller, kind, found):
        raise NotFound(f"there is no project {named!r} in which {caller.name} may make a {kind}")
    return found


def _only_project(session: Session, caller: Caller, kind: Kind, url: str | None) -> int:
    mine = {project for project, _ in caller.memberships if project is not None}
    everywhere = any(project is None for project, _ in caller.memberships)
    statement = _ACTIVE if everywhere else _ACTIVE.where(Project.id.in_(mine))
    found = {
        id_: name for id_, name in session.execute(statement) if _may_create(caller, kind, id_)
    }
    if len(found) > 1 and url is not None:
        offering = found.keys() & set(session.scalars(_OFFERS, {"url": url}))
        if len(offering) == 1:
            return offering.pop()
    if len(found) == 1:
        return next(iter(found))
    if not found:
        raise Forbidden(
            f"{caller.name} may make a {kind} in no project; ask to be invited into one, with a "
            "role that may"
        )
    names = sorted(found.values())
    more = f" and {len(names) - NAMED_PROJECTS} more" if len(names) > NAMED_PROJECTS else ""
    raise InvalidRequest(
        f"it is not clear in which project: name one of {', '.join(names[:NAMED_PROJECTS])}{more} "
        "with project_reference, or with the filter project_guid"
    )
