"""How a machine becomes a node: a one-time token, and a certificate for a key of its own."""

import shlex
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from slapos.master.certificates import authorities
from slapos.master.certificates import service as certificates
from slapos.master.certificates.authorities import Issuing
from slapos.master.certificates.authority import SubjectKind, fingerprint, read_request
from slapos.master.certificates.errors import TokenInvalid
from slapos.master.certificates.model import TITLE_LENGTH, JoinToken
from slapos.master.certificates.service import Issued
from slapos.master.identity.caller import caller_of
from slapos.master.identity.model import Project
from slapos.master.identity.one_way import hash_of
from slapos.master.identity.rights import Action, require
from slapos.master.identity.subject import Kind, Subject
from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import ComputeNode
from slapos.master.text import checked_text
from slapos.protocol.join_token import JoinToken as TokenText
from slapos.system.identifier import Identifiers

LIFE = timedelta(minutes=15)
SECRET_LENGTH = 32

_TOKEN = (
    select(JoinToken).where(JoinToken.digest == bindparam("digest")).with_for_update(of=JoinToken)
)


@dataclass(frozen=True)
class Joined:
    """A node that has joined, and its certificate."""

    node: ComputeNode
    issued: Issued


def make_join_token(
    session: Session, issuing: Issuing, identifiers: Identifiers, project: Project, title: str
) -> tuple[str, JoinToken]:
    """Return a token by which a machine joins a project under a title, within 15 minutes."""
    checked_text("the name of a node", title, TITLE_LENGTH)
    require(session, Action.CREATE, Subject(Kind.JOIN_TOKEN, title, project.id))
    project.check_active()
    authority = authorities.active_authority(session, issuing.clock)
    text = TokenText.compose(identifiers.token(SECRET_LENGTH), authority.fingerprint).text
    now = issuing.clock.now()
    row = JoinToken(
        digest=hash_of(text),
        title=title,
        project_id=project.id,
        created_by=caller_of(session).name,
        created_at=now,
        expires_at=now + LIFE,
    )
    session.add(row)
    session.flush()
    return text, row


def join(session: Session, issuing: Issuing, token: str, name: str, request: str) -> Joined:
    """Make a node of a machine that shows a token; again for the same key, while it is good.

    Raises TokenInvalid.
    """
    key = fingerprint(read_request(request))
    row = session.scalar(_TOKEN, {"digest": hash_of(token.strip())})
    if row is None:
        raise TokenInvalid("the token is unknown: copy the whole of it, or make another one")
    now, about = issuing.clock.now(), row.subject()
    if now > row.expires_at:
        raise TokenInvalid(
            f"the token ended at {row.expires_at:%H:%M} UTC; make another one", about
        )
    if name != row.title:
        raise TokenInvalid(f"the token is for a node named {row.title!r}, not {name!r}", about)
    if row.used_at is not None and row.key_fingerprint != key:
        raise TokenInvalid("the token has been used; make another one", about)
    if row.node_id is None:
        node = nodes.create(session, issuing.clock, row.project_id, row.title)
        row.used_at, row.node_id, row.key_fingerprint = now, node.id, key
    else:
        node = session.get_one(ComputeNode, row.node_id)
    kind = SubjectKind.NODE
    issued = certificates.issue(session, issuing, kind, node.reference, node.id, request)
    return Joined(node, issued)


def command(url: str, token: str, title: str) -> str:
    """Return what to run on the machine."""
    return f"slapos node register --master {url} --token {token} --name {shlex.quote(title)}"
