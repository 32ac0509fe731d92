"""Networks that nodes are in: for orders that want, or avoid, the same one."""

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import Session

from slapos.master.identity.model import Project
from slapos.master.identity.rights import Action, not_there, require, visible
from slapos.master.identity.service import find_project
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes.model import REFERENCE_LENGTH, ComputeNode, ComputerNetwork
from slapos.master.numbering import next_number
from slapos.master.text import checked_text
from slapos.protocol.errors import Conflict
from slapos.system.clock import Clock

NETWORK = select(ComputerNetwork).where(ComputerNetwork.reference == bindparam("reference"))
LOCKED_NETWORK = NETWORK.with_for_update()
OF_TITLE = select(ComputerNetwork.reference).where(
    ComputerNetwork.project_id == bindparam("project_id"),
    ComputerNetwork.title == bindparam("title"),
)
COUNT_NODES = select(func.count()).where(ComputeNode.network_id == bindparam("network_id"))


def find_network(session: Session, reference: str, *, lock: bool = False) -> ComputerNetwork:
    """Return a network that the caller may see, or raise NotFound."""
    network = session.scalar(LOCKED_NETWORK if lock else NETWORK, {"reference": reference})
    if network is None:
        raise not_there(Subject(Kind.NETWORK, reference))
    require(session, Action.SEE, network)
    return network


def networks(session: Session, project: str | None = None) -> Select[ComputerNetwork]:
    """Return a SELECT of the networks that the caller may see, of one project or of all."""
    statement = select(ComputerNetwork)
    statement = visible(session, statement, Kind.NETWORK, project=ComputerNetwork.project_id)
    if project is not None:
        statement = statement.join(ComputerNetwork.project).where(Project.reference == project)
    return statement


def create(session: Session, clock: Clock, project: str, title: str) -> ComputerNetwork:
    """Make a network of a project: NET-n."""
    found = find_project(session, project)
    require(session, Action.CREATE, Subject(Kind.NETWORK, title, found.id))
    found.check_active()
    _check_title(session, found.id, title)
    network = ComputerNetwork(
        reference=f"NET-{next_number(session)}",
        title=title,
        project_id=found.id,
        created_at=clock.now(),
    )
    session.add(network)
    session.flush()
    return network


def rename(session: Session, reference: str, title: str) -> ComputerNetwork:
    """Give a network another title."""
    network = find_network(session, reference, lock=True)
    require(session, Action.CHANGE, network)
    if title != network.title:
        _check_title(session, network.project_id, title)
        network.title = title
        session.flush()
    return network


def remove(session: Session, reference: str) -> None:
    """Remove a network, or raise Conflict when nodes are in it."""
    # A node that is put into it at this moment has to wait: it locks the row it refers to.
    network = find_network(session, reference, lock=True)
    require(session, Action.DESTROY, network)
    count = session.scalar(COUNT_NODES, {"network_id": network.id})
    if count:
        raise Conflict(
            f"{count} nodes are in the network {network.reference}; take them out of it first"
        )
    session.delete(network)
    session.flush()


def _check_title(session: Session, project_id: int, title: str) -> None:
    checked_text("the title of a network", title, REFERENCE_LENGTH)
    taken = session.scalar(OF_TITLE, {"project_id": project_id, "title": title})
    if taken is not None:
        raise Conflict(f"the project has a network {title!r} already: {taken}")
