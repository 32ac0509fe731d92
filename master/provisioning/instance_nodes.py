"""Instances that host shared ones of their project's customers. Nothing here commits."""

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from slapos.master.identity.rights import Action, not_there, require, visible
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes.service import sense_project
from slapos.master.numbering import next_number
from slapos.master.provisioning.model import TITLE_LENGTH, InstanceNode, SoftwareInstance
from slapos.master.provisioning.trees import find_instance
from slapos.master.text import checked_text
from slapos.protocol.errors import Conflict
from slapos.system.clock import Clock

NODE = select(InstanceNode).where(InstanceNode.reference == bindparam("reference"))


def instance_nodes(session: Session) -> Select[InstanceNode]:
    """Return a SELECT of the instance nodes that the caller may see."""
    statement = select(InstanceNode)
    return visible(session, statement, Kind.INSTANCE_NODE, project=InstanceNode.project_id)


def find(session: Session, reference: str) -> InstanceNode:
    """Return an instance node that the caller may see, or raise NotFound."""
    found = session.scalar(NODE, {"reference": reference})
    if found is None:
        raise not_there(Subject(Kind.INSTANCE_NODE, reference))
    require(session, Action.SEE, found)
    return found


def create(session: Session, clock: Clock, title: str, instance: str) -> InstanceNode:
    """Have an instance host shared ones: SHARED-n. Those that wait for a host are looked at."""
    host = find_instance(session, instance, lock=True)
    project_id = host.tree.project_id
    require(session, Action.CREATE, Subject(Kind.INSTANCE_NODE, title, project_id))
    checked_text("the title of an instance node", title, TITLE_LENGTH)
    _check(session, host, title)
    made = InstanceNode(
        reference=f"SHARED-{next_number(session)}",
        project_id=project_id,
        title=title,
        instance=host,
        created_at=clock.now(),
    )
    session.add(made)
    session.flush()
    sense_project(session, project_id)
    return made


def remove(session: Session, reference: str) -> None:
    """Have an instance host no more shared ones; those that it hosts stay."""
    found = find(session, reference)
    require(session, Action.DESTROY, found)
    session.delete(found)
    session.flush()


def _check(session: Session, host: SoftwareInstance, title: str) -> None:
    if host.shared or host.is_to_go or host.is_elsewhere:
        why = "is shared itself" if host.shared else "is to be destroyed"
        if host.is_elsewhere:
            why = "is on a remote node; have it be one on the master there"
        raise Conflict(f"{host.reference} cannot host shared instances: it {why}")
    taken = session.scalar(
        select(InstanceNode.reference).where(
            (InstanceNode.instance_id == host.id)
            | ((InstanceNode.project_id == host.tree.project_id) & (InstanceNode.title == title))
        )
    )
    if taken is not None:
        raise Conflict(f"{taken} has that title, or is that instance, already")
