"""What can be done with releases on nodes. Nothing here commits."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos.master.catalog.model import SoftwareInstallation
from slapos.master.nodes import service as nodes
from slapos.master.nodes.exchange import heard_from
from slapos.master.nodes.model import ComputeNode
from slapos.master.text import URL_LENGTH, checked_text, kept_message
from slapos.protocol.errors import InvalidRequest, NotFound
from slapos.protocol.states import BuildState, InstallationState
from slapos.system.clock import Clock


def supply(
    session: Session, clock: Clock, *, node: str, url: str, state: str
) -> SoftwareInstallation | None:
    """Have a release on a node, or have it removed; None when it is not there to be removed."""
    try:
        wanted = InstallationState(state)
    except ValueError as error:
        raise InvalidRequest(
            f"a release can be 'available' or 'destroyed' on a node, not {state!r}"
        ) from error
    checked_text("the URL of a release", url, URL_LENGTH)
    found = nodes.find_node(session, node)
    installation = find(session, found.id, url)
    if installation is None:
        if wanted is InstallationState.DESTROYED:
            return None
        installation = SoftwareInstallation(
            node_id=found.id, url=url, requested_state=wanted, created_at=clock.now(), message=""
        )
        session.add(installation)
    elif installation.requested_state != wanted:
        installation.requested_state = wanted
        installation.reported_state, installation.message = None, ""
        installation.reported_at = None
    session.flush()
    return installation


def report(
    session: Session, clock: Clock, *, node: str, url: str, state: BuildState, message: str = ""
) -> None:
    """Take in what a node says of a release; one that is removed as requested is forgotten."""
    found = nodes.find_node(session, node)
    heard_from(session, found.id, clock.now())
    if state is BuildState.DESTROYED:
        installation = find(session, found.id, url)
        if installation is not None:
            session.delete(installation)
    else:
        installation = find_wanted(session, found, url)
        installation.reported_state, installation.reported_at = state, clock.now()
        installation.message = kept_message(message)
    session.flush()


def find(session: Session, node_id: int, url: str) -> SoftwareInstallation | None:
    """Return a release on a node."""
    return session.scalar(
        select(SoftwareInstallation).where(
            SoftwareInstallation.node_id == node_id, SoftwareInstallation.url == url
        )
    )


def find_wanted(session: Session, node: ComputeNode, url: str) -> SoftwareInstallation:
    """Return a release on a node, or raise NotFound."""
    installation = find(session, node.id, url)
    if installation is None:
        raise NotFound(
            f"the release {url} is not wanted on the node {node.reference!r}: "
            f"`slapos supply {url} {node.reference}` would have it built there"
        )
    return installation


def installations(session: Session, node_id: int) -> Sequence[SoftwareInstallation]:
    """Return the releases of a node, the first wanted first."""
    return session.scalars(
        select(SoftwareInstallation)
        .where(SoftwareInstallation.node_id == node_id)
        .order_by(SoftwareInstallation.id)
    ).all()


def releases_of(products: Mapping[str, str], product: str) -> list[str]:
    """Return the URLs of a software product's releases, the best first."""
    return [products[product]] if product in products else []
