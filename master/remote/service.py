"""What can be done with remote nodes. Nothing here commits, and nothing speaks over the network."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypedDict
from urllib.parse import urlsplit

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import Session, selectinload

from slapos.master.identity.model import Project
from slapos.master.identity.rights import Action, not_there, require, visible
from slapos.master.identity.service import find_project
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes import operate
from slapos.master.nodes import service as nodes
from slapos.master.nodes.exchange import ASK_OTHER_MASTERS, touch
from slapos.master.nodes.model import (
    REFERENCE_LENGTH,
    SHARED_REMOTE,
    ComputeNode,
    ComputePartition,
    NodeExchange,
    PartitionState,
    RemoteNode,
)
from slapos.master.nodes.operate import NodeChange
from slapos.master.numbering import next_number
from slapos.master.provisioning import placement
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.remote.asking import Credentials, Peer, Reach, check_files
from slapos.master.remote.model import RemoteRequest
from slapos.master.tasks.task import sense
from slapos.master.text import URL_LENGTH, checked_text
from slapos.protocol.errors import Conflict, InvalidConfiguration, InvalidFields
from slapos.system.clock import Clock

#: Encrypts what says whom we are elsewhere.
Seal = Callable[[str], str]
PARTITION = "slapremote"
#: How many partitions a remote node may have.
MOST_PARTITIONS = 10_000
#: Bytes of what is sent with each order, and of a certificate, a key or a token.
FILTERS_LENGTH = 4_000
PEM_LENGTH = 64_000
TOKEN_LENGTH = 2_000

NODE = (
    select(ComputeNode)
    .where(ComputeNode.reference == bindparam("reference"), ComputeNode.is_remote)
    .execution_options(populate_existing=True)
)
REMOTE = (
    select(RemoteNode)
    .where(RemoteNode.node_id == bindparam("node"))
    .with_for_update(of=RemoteNode)
    .execution_options(populate_existing=True)
)
#: What is needed to show remote nodes.
WHOLE = (
    selectinload(ComputeNode.remote),
    selectinload(ComputeNode.project),
    selectinload(ComputeNode.network),
    selectinload(ComputeNode.categories),
)
COUNT_INSTANCES = select(func.count()).where(SoftwareInstance.node_id == bindparam("node"))
COUNT_REQUESTS = select(func.count()).where(RemoteRequest.node_id == bindparam("node"))


class RemoteChange(TypedDict, total=False):
    """What a remote node is to be; `credentials` are a token, or a certificate and its key.

    `project_there` is the reference of a project of the other master, "" where the person has one
    only; `authority` is PEM, "" for those that the system trusts.
    """

    url: str
    project_there: str
    filters: Mapping[str, Any]
    authority: str
    credentials: Credentials
    partitions: int


def find(session: Session, reference: str, *, lock: bool = False) -> ComputeNode:
    """Return a remote node that the caller may see, or raise NotFound.

    With `lock`, nobody else changes it, or finds out what to ask of the other master, until the
    end.
    """
    statement = NODE.with_for_update(key_share=True, of=ComputeNode) if lock else NODE
    node = session.scalar(statement, {"reference": reference})
    if node is None:
        raise not_there(Subject(Kind.REMOTE_NODE, reference))
    require(session, Action.SEE, node)
    if lock:
        session.scalars(REMOTE, {"node": node.id}).one()
    return node


def matching(session: Session, project: str | None = None) -> Select[ComputeNode]:
    """Return a SELECT of the remote nodes that the caller may see, of one project or of all."""
    statement = select(ComputeNode).where(ComputeNode.is_remote)
    statement = visible(session, statement, Kind.REMOTE_NODE, project=ComputeNode.project_id)
    if project is not None:
        statement = statement.join(ComputeNode.project).where(Project.reference == project)
    return statement


def create(
    session: Session,
    clock: Clock,
    seal: Seal,
    reach: Reach,
    *,
    project: str,
    title: str,
    wanted: RemoteChange,
) -> ComputeNode:
    """Make a remote node of a project: REMOTE-n, with partitions `slapremote0` and so on."""
    found = find_project(session, project)
    require(session, Action.CREATE, Subject(Kind.REMOTE_NODE, title, found.id))
    found.check_active()
    nodes.check_title(session, found.id, title)
    node = ComputeNode(
        reference=f"REMOTE-{next_number(session)}",
        title=title,
        project_id=found.id,
        created_at=clock.now(),
        is_remote=True,
    )
    node.exchange = NodeExchange(is_remote=True)
    node.remote = RemoteNode(url="", filters={}, sealed_credentials="", revision=0)
    node.partitions = [ComputePartition(reference=SHARED_REMOTE, state=PartitionState.BUSY)]
    _set(node.remote, seal, reach, wanted)
    session.add(node)
    session.flush()
    _set_partitions(session, clock, node, wanted.get("partitions", 10))
    session.flush()
    touch(session, node.id)
    return node


def change(
    session: Session,
    clock: Clock,
    seal: Seal,
    reach: Reach,
    reference: str,
    wanted: RemoteChange,
    of_node: NodeChange,
) -> ComputeNode:
    """Change a remote node: what is there is asked for again, and at once.

    The project there cannot change while the node holds something. Another URL has to lead to the
    same master.
    """
    node = find(session, reference, lock=True)
    require(session, Action.CHANGE, node)
    remote = node.remote
    assert remote is not None
    there = wanted.get("project_there", remote.project_reference)
    if there != remote.project_reference and _is_in_use(session, node):
        raise Conflict(
            f"{reference} holds instances in the project {remote.project_reference or '-'} of "
            f"{remote.url}, which cannot move to another; make another remote node for that"
        )
    if wanted.keys() - {"partitions"}:
        _set(remote, seal, reach, wanted)
        sense(session, ASK_OTHER_MASTERS, str(node.id))
    if "partitions" in wanted:
        _set_partitions(session, clock, node, wanted["partitions"])
    if of_node:
        operate.change(session, reference, of_node)
    session.flush()
    return node


def count_partitions(session: Session, node: ComputeNode) -> Mapping[str, int]:
    """Return how many partitions are free and busy; the place for shared instances is neither."""
    counts = dict(operate.count_partitions(session, node.id))
    counts[PartitionState.BUSY] -= 1
    return counts


def remove(session: Session, reference: str) -> None:
    """Remove a remote node, or raise Conflict while it holds something, here or there."""
    node = find(session, reference, lock=True)
    require(session, Action.DESTROY, node)
    assert node.remote is not None
    held = operate.count_busy(session, node) or session.scalar(COUNT_INSTANCES, {"node": node.id})
    if held:
        raise Conflict(
            f"{reference} holds {held} instances; destroy them first, or close it so that no more "
            "come"
        )
    left = session.scalar(COUNT_REQUESTS, {"node": node.id})
    if left:
        raise Conflict(
            f"{left} services on {node.remote.url} have yet to be told that they are given up"
            f"{f': {node.remote.error}' if node.remote.error else ''}; it can be removed after that"
        )
    session.delete(node)
    session.flush()


def _is_in_use(session: Session, node: ComputeNode) -> bool:
    counts = [session.scalar(each, {"node": node.id}) for each in (COUNT_INSTANCES, COUNT_REQUESTS)]
    return any(counts)


def _set(remote: RemoteNode, seal: Seal, reach: Reach, wanted: RemoteChange) -> None:
    if "url" in wanted:
        url = _checked_url(wanted["url"], reach)
        if remote.url and _origin(url) != _origin(remote.url) and not wanted.get("credentials"):
            # Else whoever may change it could have them sent to where he reads them.
            raise _wrong("url", "another master is shown other credentials: give them with it")
        remote.url = url
    if "project_there" in wanted:
        text = checked_text(
            "the project of the other master", wanted["project_there"], REFERENCE_LENGTH, empty=True
        )
        remote.project_reference = text
    if "filters" in wanted:
        remote.filters = _checked_filters(wanted["filters"])
    if "authority" in wanted:
        remote.authority = _checked_size("authority", wanted["authority"], PEM_LENGTH)
    credentials = wanted.get("credentials")
    if credentials is not None:
        _check_credentials(credentials)
        remote.sealed_credentials = seal(credentials.to_json())
        remote.credentials_until = credentials.until
    _check_files(remote, credentials or Credentials())
    remote.revision += 1
    remote.next_at = None  # it may be reached now


def _checked_url(url: str, reach: Reach) -> str:
    checked_text("the URL of the other master", url, URL_LENGTH)
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        raise _wrong("url", "it is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not has_port:
        raise _wrong("url", "it must be a URL such as https://master.example.com/")
    if parts.username is not None or parts.query or parts.fragment:
        raise _wrong("url", "it must have no user, password, query or fragment")
    if parts.scheme == "http" and not reach.networks:
        raise _wrong("url", "only https is allowed")
    return url.rstrip("/") + "/"


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _check_credentials(shown: Credentials) -> None:
    is_pair = bool(shown.key and shown.certificate)
    if bool(shown.key) != bool(shown.certificate) or is_pair == bool(shown.token):
        raise _wrong("token", "give either a token, or a certificate and its key")
    if not (shown.token.isascii() and shown.token.isprintable()) or " " in shown.token:
        raise _wrong("token", "it has characters that a token cannot have")
    _checked_size("token", shown.token, TOKEN_LENGTH)
    _checked_size("key", shown.key, PEM_LENGTH)
    _checked_size("certificate", shown.certificate, PEM_LENGTH)


def _check_files(remote: RemoteNode, shown: Credentials) -> None:
    without = replace(shown, key="", certificate="")
    for name, peer in (
        ("authority", Peer(remote.url, remote.authority, without)),
        ("certificate", Peer(remote.url, "", shown)),
    ):
        try:
            check_files(peer)
        except InvalidConfiguration as error:
            what = "the certificate and the key do not fit" if name == "certificate" else ""
            raise _wrong(name, what or "it is no certificate in PEM") from error


def _checked_filters(filters: Mapping[str, Any]) -> dict[str, Any]:
    if not all(isinstance(value, str) for value in filters.values()):
        raise _wrong("filters", "each must have a text as its value")
    _checked_size("filters", json.dumps(dict(filters)), FILTERS_LENGTH)
    return dict(filters)


def _checked_size(field: str, text: str, length: int) -> str:
    if len(text.encode(errors="replace")) > length or "\0" in text:
        raise _wrong(field, f"it is larger than {length} bytes, or has a null character")
    return text


def _wrong(field: str, reason: str) -> InvalidFields:
    return InvalidFields(f"the remote node cannot be like that: {field}: {reason}", {field: reason})


def _set_partitions(session: Session, clock: Clock, node: ComputeNode, count: int) -> None:
    """Have so many partitions; a busy one that is too many goes as soon as it is free."""
    if not 0 <= count <= MOST_PARTITIONS:
        raise _wrong("partitions", f"it can be 0 to {MOST_PARTITIONS}")
    wanted = {f"{PARTITION}{number}" for number in range(count)}
    found = session.scalars(operate.LOCKED_PARTITIONS, {"node_id": node.id}).all()
    known = {each.reference: each for each in found if each.reference != SHARED_REMOTE}
    for number in range(count):
        present = known.get(f"{PARTITION}{number}")
        if present is None:
            session.add(ComputePartition(node_id=node.id, reference=f"{PARTITION}{number}"))
        else:
            present.missing_since = None
    for reference in known.keys() - wanted:
        if known[reference].state == PartitionState.FREE:
            session.delete(known[reference])
        elif known[reference].missing_since is None:
            known[reference].missing_since = clock.now()
    session.flush()
    placement.has_vacancy(session, node.id)
    nodes.may_take_more(session, node)
