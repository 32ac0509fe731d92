"""Links that are good once: to become the first administrator, and for a new password."""

from datetime import timedelta
from enum import StrEnum

from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from slapos.master.identity import rights, service
from slapos.master.identity.caller import Role
from slapos.master.identity.credentials import OneTimeLink
from slapos.master.identity.model import Membership, Person, PersonState
from slapos.master.identity.one_way import hash_of, new_secret
from slapos.master.identity.rights import Action
from slapos.protocol.errors import Conflict, SecretInvalid
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers

LIFE = timedelta(hours=24)
CODE_LIFE = timedelta(minutes=10)
SETUP_PATH = "/setup"
RESET_PATH = "/new-password"


class LinkKind(StrEnum):
    """What a link is good for."""

    SETUP = "setup"
    RESET = "reset"
    #: For who has shown the password, and has a code to type yet.
    CODE = "code"


_HAS_ADMINISTRATOR = (
    select(Membership.id)
    .where(Membership.project_id.is_(None), Membership.role == Role.ADMINISTRATOR)
    .limit(1)
)
_LINK = select(OneTimeLink).where(
    OneTimeLink.kind == bindparam("kind"), OneTimeLink.hash == bindparam("hash")
)


def has_administrator(session: Session) -> bool:
    """Return whether the master has been set up."""
    return session.scalar(_HAS_ADMINISTRATOR) is not None


def has_setup_link(session: Session) -> bool:
    """Return whether a link for the first administrator has been made, used or not."""
    made = select(OneTimeLink.id).where(OneTimeLink.kind == LinkKind.SETUP).limit(1)
    return session.scalar(made) is not None


def make_setup_link(session: Session, clock: Clock, identifiers: Identifiers, url: str) -> str:
    """Return a link by which somebody becomes the first administrator, within 24 hours.

    `url` is where people reach the master. Raises Conflict once there is an administrator.
    """
    if has_administrator(session):
        raise Conflict("the master has an administrator; he can invite others")
    return _make(session, clock, identifiers, LinkKind.SETUP, url.rstrip("/") + SETUP_PATH)


def make_reset_link(
    session: Session, clock: Clock, identifiers: Identifiers, person: Person, url: str
) -> str:
    """Return a link by which a person gives herself a new password, within 24 hours."""
    rights.require(session, Action.ADMINISTER, person)
    session.execute(delete(OneTimeLink).where(OneTimeLink.person_id == person.id))
    return _make(session, clock, identifiers, LinkKind.RESET, url.rstrip("/") + RESET_PATH, person)


def make_code_link(session: Session, clock: Clock, identifiers: Identifiers, person_id: int) -> str:
    """Return a secret for who has shown the password of a person, and now needs a code."""
    secret, expires = new_secret(identifiers), clock.now() + CODE_LIFE
    session.add(
        OneTimeLink(
            kind=LinkKind.CODE, hash=hash_of(secret), person_id=person_id, expires_at=expires
        )
    )
    session.flush()
    return secret


def _make(
    session: Session,
    clock: Clock,
    identifiers: Identifiers,
    kind: LinkKind,
    url: str,
    person: Person | None = None,
) -> str:
    secret = new_secret(identifiers)
    session.add(
        OneTimeLink(
            kind=kind,
            hash=hash_of(secret),
            person_id=None if person is None else person.id,
            expires_at=clock.now() + LIFE,
        )
    )
    session.flush()
    return f"{url}?token={secret}"


def find(
    session: Session, clock: Clock, kind: LinkKind, secret: str, *, lock: bool = False
) -> OneTimeLink:
    """Return a link that is still good; raises SecretInvalid."""
    statement = _LINK.with_for_update() if lock else _LINK
    link = session.scalar(statement, {"kind": kind, "hash": hash_of(secret)})
    if link is None or link.expires_at <= clock.now():
        raise SecretInvalid("the link is unknown, used or expired; have another one made")
    return link


def set_up(session: Session, clock: Clock, secret: str, *, email: str, name: str) -> Person:
    """Make the first administrator of whoever has a link for it; asks for no right."""
    # All of them, so that of two who follow two links at once one comes too late.
    every = select(OneTimeLink).where(OneTimeLink.kind == LinkKind.SETUP).order_by(OneTimeLink.id)
    session.scalars(every.with_for_update()).all()
    find(session, clock, LinkKind.SETUP, secret)
    if has_administrator(session):
        raise SecretInvalid("the master has been set up meanwhile; its administrator can invite")
    person = service.add_person(session, clock, email, name, PersonState.ACTIVE)
    service.grant(session, clock, person, None, Role.ADMINISTRATOR)
    session.execute(delete(OneTimeLink).where(OneTimeLink.kind == LinkKind.SETUP))
    return person


def use_reset_link(session: Session, clock: Clock, secret: str) -> Person:
    """Return who may give herself a new password, and end the link; asks for no right."""
    link = find(session, clock, LinkKind.RESET, secret, lock=True)
    person = session.get_one(Person, link.person_id)
    person.activate()
    session.delete(link)
    session.flush()
    return person
