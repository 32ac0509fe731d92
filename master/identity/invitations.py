"""Invitations: a role waits for whoever has a link and the e-mail address that it was made for."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from slapos.master import numbering
from slapos.master.identity import rights, service
from slapos.master.identity.caller import CallerKind, Role, caller_of
from slapos.master.identity.credentials import Invitation
from slapos.master.identity.model import Person, PersonState, Project
from slapos.master.identity.one_way import hash_of, new_secret
from slapos.master.identity.rights import Action
from slapos.master.identity.subject import Kind, Subject
from slapos.protocol.errors import Conflict, Forbidden, SecretInvalid
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers

LIFE = timedelta(days=7)
PATH = "/invitation"

_BY_HASH = select(Invitation).where(Invitation.hash == bindparam("hash"))
_BY_REFERENCE = select(Invitation).where(Invitation.reference == bindparam("reference"))


def invitations(session: Session, project: Project) -> Select[Any]:
    """Return a SELECT of a project's invitations that nobody has accepted."""
    rights.require(session, Action.SEE, Subject(Kind.INVITATION, "invitations", project.id))
    return select(Invitation).where(Invitation.project_id == project.id)


def invite(
    session: Session,
    clock: Clock,
    identifiers: Identifiers,
    *,
    email: str,
    role: Role,
    project: Project | None,
) -> tuple[Invitation, str]:
    """Invite somebody into a project, or to a role everywhere, and return the secret of the link.

    It is good once, for seven days, and for that e-mail address.
    """
    subject = Subject(Kind.INVITATION, email, None if project is None else project.id)
    rights.require(session, Action.CREATE, subject)
    service.check_role(role, project)
    service.require_grant(session, Action.CREATE, project, role)
    caller = caller_of(session)
    secret, now = new_secret(identifiers), clock.now()
    invitation = Invitation(
        reference=f"INVITE-{numbering.next_number(session)}",
        project=project,
        role=role,
        email=service.checked_email(email),
        hash=hash_of(secret),
        invited_by_id=caller.id if caller.kind is CallerKind.PERSON else None,
        created_at=now,
        expires_at=now + LIFE,
    )
    session.add(invitation)
    session.flush()
    return invitation, secret


def link_of(secret: str, url: str) -> str:
    """Return the link to be given to who is invited; `url` is where people reach the master."""
    return f"{url.rstrip('/')}{PATH}?token={secret}"


def withdraw(session: Session, project: Project, reference: str) -> None:
    """End an invitation that nobody has accepted; raises NotFound."""
    invitation = session.scalar(_BY_REFERENCE, {"reference": reference})
    if invitation is None or invitation.project_id != project.id:
        raise rights.not_there(Subject(Kind.INVITATION, reference))
    rights.require(session, Action.DESTROY, invitation)
    session.delete(invitation)
    session.flush()


def find(session: Session, clock: Clock, secret: str, *, lock: bool = False) -> Invitation:
    """Return an invitation that can still be accepted, to who has its link; else SecretInvalid."""
    statement = _BY_HASH.with_for_update() if lock else _BY_HASH
    invitation = session.scalar(statement, {"hash": hash_of(secret)})
    if invitation is None or invitation.expires_at <= clock.now():
        raise SecretInvalid("the invitation is unknown, used or expired; ask for another one")
    if invitation.project is not None:
        invitation.project.check_active()
    return invitation


def has_account(session: Session, invitation: Invitation) -> bool:
    """Return whether the invited person has to sign in to accept; tell only who has the link."""
    person = service.person_of_email(session, invitation.email)
    return person is not None and person.state != PersonState.INVITED


def accept(session: Session, clock: Clock, secret: str) -> Person:
    """Give the role to the caller, whose e-mail address must be the invited one."""
    invitation = find(session, clock, secret, lock=True)
    caller = caller_of(session)
    if caller.kind is not CallerKind.PERSON or caller.scopes is not None:
        raise Forbidden("sign in first, to accept as yourself")
    person = session.get_one(Person, caller.id)
    if person.email != invitation.email:
        raise Forbidden("the invitation is for another e-mail address than yours")
    _take(session, clock, invitation, person)
    return person


def accept_as_new(session: Session, clock: Clock, secret: str, name: str) -> Person:
    """Make the invited person, with the role; raises Conflict when she has an account already."""
    invitation = find(session, clock, secret, lock=True)
    person = service.person_of_email(session, invitation.email)
    if person is None:
        person = service.add_person(session, clock, invitation.email, name, PersonState.INVITED)
    elif person.state != PersonState.INVITED:
        raise Conflict("you have an account already: sign in, and accept then")
    person.activate()
    _take(session, clock, invitation, person)
    return person


def _take(session: Session, clock: Clock, invitation: Invitation, person: Person) -> None:
    service.grant(session, clock, person, invitation.project, Role(invitation.role))
    session.delete(invitation)
    session.flush()
