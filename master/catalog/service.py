"""What can be done with releases on nodes. Nothing here commits."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Select, bindparam, or_, select
from sqlalchemy.orm import Session

from slapos.master.catalog import use
from slapos.master.catalog.model import (
    INSTALLATION_PREFIX,
    ProductState,
    SoftwareInstallation,
    SoftwareProduct,
    SoftwareRelease,
)
from slapos.master.identity.caller import CallerKind, caller_of
from slapos.master.identity.model import Project
from slapos.master.identity.rights import Action, not_there, require, visible
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes import service as nodes
from slapos.master.nodes.exchange import heard_from
from slapos.master.nodes.model import ComputeNode
from slapos.master.text import URL_LENGTH, checked_text, kept_message
from slapos.protocol.errors import Conflict, InvalidRequest, NotFound
from slapos.protocol.states import BuildState, InstallationState
from slapos.system.clock import Clock

#: Longer numbers are of no row.
LONGEST_NUMBER = 10
ON_NODE = select(SoftwareInstallation).where(
    SoftwareInstallation.node_id == bindparam("node_id"),
    SoftwareInstallation.url == bindparam("url"),
)


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
    subject = Subject(Kind.INSTALLATION, url, found.project_id, node_id=found.id)
    if wanted is InstallationState.AVAILABLE:
        require(session, Action.CREATE, subject)
        found.check_valid()
        if found.is_remote:
            raise Conflict(
                f"{found.reference} is a remote node, where nothing is installed: the master there "
                "sees to it. Put the node into a supply that allows the release"
            )
        installation = need(session, clock, found.id, url)
        session.flush()
        nodes.may_take_more(session, found)
        return installation
    require(session, Action.DESTROY, subject)
    return _give_up(session, found, url)


def need(session: Session, clock: Clock, node_id: int, url: str) -> SoftwareInstallation:
    """Have a release on a node because an instance there needs it; not flushed yet."""
    installation = find(session, node_id, url)
    if installation is None:
        installation = SoftwareInstallation(
            node_id=node_id,
            url=url,
            requested_state=InstallationState.AVAILABLE,
            created_at=clock.now(),
            message="",
        )
        session.add(installation)
    else:
        installation.want(InstallationState.AVAILABLE)
    return installation


def _give_up(session: Session, node: ComputeNode, url: str) -> SoftwareInstallation | None:
    installation = find(session, node.id, url)
    if installation is None:
        return None
    is_local = caller_of(session).kind is CallerKind.LOCAL
    if not is_local and use.is_used(session, node.id, url):
        raise Conflict(
            f"the release {url} is used by instances on {node.reference}; "
            "destroy or upgrade those first"
        )
    installation.want(InstallationState.DESTROYED)
    session.flush()
    return installation


def report(
    session: Session, clock: Clock, *, node: str, url: str, state: BuildState, message: str = ""
) -> None:
    """Take in what a node says of a release; one that is removed as requested is forgotten."""
    found = nodes.find_node(session, node)
    subject = Subject(Kind.INSTALLATION, url, found.project_id, node_id=found.id)
    require(session, Action.REPORT, subject)
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


def matching(
    session: Session,
    *,
    node: str | None = None,
    url: str | None = None,
    project: str | None = None,
) -> Select[SoftwareInstallation]:
    """Return a SELECT of the installations that are looked for and that the caller may see."""
    statement = select(SoftwareInstallation).join(SoftwareInstallation.node)
    statement = visible(
        session,
        statement,
        Kind.INSTALLATION,
        project=ComputeNode.project_id,
        node=SoftwareInstallation.node_id,
    )
    if node is not None:
        statement = statement.where(ComputeNode.reference == node)
    if url is not None:
        statement = statement.where(SoftwareInstallation.url == url)
    if project is not None:
        statement = statement.join(ComputeNode.project).where(Project.reference == project)
    return statement


def find_installation(session: Session, reference: str) -> SoftwareInstallation:
    """Return the installation SOFTINSTALL-n that the caller may see, or raise NotFound."""
    number = reference.removeprefix(INSTALLATION_PREFIX)
    is_number = number.isascii() and number.isdigit() and len(number) < LONGEST_NUMBER
    installation = session.get(SoftwareInstallation, int(number)) if is_number else None
    if installation is None or installation.reference != reference:
        raise not_there(Subject(Kind.INSTALLATION, reference[:60]))
    require(session, Action.SEE, installation)
    return installation


def find(session: Session, node_id: int, url: str) -> SoftwareInstallation | None:
    """Return a release on a node."""
    return session.scalar(ON_NODE, {"node_id": node_id, "url": url})


def find_many(
    session: Session, wanted: Collection[tuple[int, str]]
) -> dict[tuple[int, str], SoftwareInstallation]:
    """Return releases on nodes by the nodes' ids and the URLs; what is not there is left out."""
    if not wanted:
        return {}
    found = session.scalars(
        select(SoftwareInstallation).where(
            SoftwareInstallation.node_id.in_({node_id for node_id, _ in wanted}),
            SoftwareInstallation.url.in_({url for _, url in wanted}),
        )
    )
    return {(each.node_id, each.url): each for each in found}


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


def offered_releases(
    session: Session,
    clock: Clock,
    *,
    product: str | None = None,
    url: str | None = None,
    project: str | None = None,
) -> list[str]:
    """Return the URLs of a published product's releases, the best first.

    The product goes by its reference or title, or by the URL of one of its releases; in one project
    or in all that the caller may see. The best is the one that took effect last; those of the
    future come last, the nearest first. An unknown product has none.
    """
    if (product is None) == (url is None):
        raise InvalidRequest("name either a software product or one of its releases")
    statement = select(SoftwareRelease).join(SoftwareRelease.product)
    statement = visible(session, statement, Kind.PRODUCT, project=SoftwareProduct.project_id)
    statement = statement.where(SoftwareProduct.state == ProductState.PUBLISHED)
    if product is not None:
        named = or_(SoftwareProduct.reference == product, SoftwareProduct.title == product)
        statement = statement.where(named)
    else:
        statement = statement.where(SoftwareProduct.releases.any(SoftwareRelease.url == url))
    if project is not None:
        statement = statement.join(SoftwareProduct.project).where(Project.reference == project)
    found = session.scalars(statement).all()
    return list(dict.fromkeys(each.url for each in best_first(found, clock.now())))


def best_first(releases: Iterable[SoftwareRelease], now: datetime) -> list[SoftwareRelease]:
    """Return releases in the order in which they are to be taken."""
    by_age = sorted(releases, key=lambda each: (each.effective_at, each.id))
    present = [each for each in by_age if each.effective_at <= now]
    return present[::-1] + by_age[len(present) :]
