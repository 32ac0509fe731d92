"""Persons, organisations and projects, and who is what in which."""

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import Session, contains_eager, selectinload

from slapos.master import numbering
from slapos.master.identity import rights
from slapos.master.identity.caller import CallerKind, Role, caller_of
from slapos.master.identity.model import (
    EMAIL_LENGTH,
    NAME_LENGTH,
    Membership,
    Organisation,
    Person,
    PersonState,
    Project,
    ProjectState,
)
from slapos.master.identity.rights import Action
from slapos.master.identity.subject import Kind, Subject
from slapos.master.text import checked_text
from slapos.protocol.errors import Conflict, Forbidden, InvalidFields, NotFound
from slapos.system.clock import Clock

#: Enough to find slips; whether somebody reads mail there shows only when some is sent.
_EMAIL = re.compile(r"[^@\s<>\"']+@[^@\s<>\"'.]+(\.[^@\s<>\"'.]+)*")

_PERSON = select(Person).where(Person.reference == bindparam("reference"))
_PERSON_BY_EMAIL = select(Person).where(Person.email == bindparam("email"))
_PROJECT = select(Project).where(Project.reference == bindparam("reference"))
_ROLES = select(Membership).where(
    Membership.person_id == bindparam("person"),
    Membership.project_id.is_not_distinct_from(bindparam("project")),
)
#: Those who can put in order again what somebody breaks; ordered, so that nobody waits in a circle.
_ADMINISTRATORS = (
    select(Membership)
    .join(Person)
    .where(
        Membership.project_id.is_(None),
        Membership.role == Role.ADMINISTRATOR,
        Person.state == PersonState.ACTIVE,
    )
    .order_by(Membership.id)
)
_MANAGERS = select(func.count()).where(
    Membership.project_id == bindparam("project"), Membership.role == Role.PRODUCTION_MANAGER
)


def checked_email(email: str) -> str:
    """Return an e-mail address as it is kept; raises InvalidFields."""
    kept = email.strip().lower()
    if not _EMAIL.fullmatch(kept) or len(kept.encode()) > EMAIL_LENGTH:
        reason = "it is no e-mail address, such as name@example.com"
        raise InvalidFields(f"the e-mail address cannot be used: {reason}", {"email": reason})
    return kept


# --- persons


def persons(session: Session) -> Select[Any]:
    """Return a SELECT of the persons that the caller may see."""
    return rights.visible(session, select(Person), Kind.PERSON, owner=Person.id)


def find_person(session: Session, reference: str, *, lock: bool = False) -> Person:
    """Return a person that the caller may see; raises NotFound."""
    statement = _PERSON.with_for_update() if lock else _PERSON
    person = session.scalar(statement, {"reference": reference})
    if person is None:
        raise rights.not_there(Subject(Kind.PERSON, reference))
    rights.require(session, Action.SEE, person)
    return person


def person_of_email(session: Session, email: str) -> Person | None:
    """Return whose e-mail address it is; asks for no right."""
    return session.scalar(_PERSON_BY_EMAIL, {"email": email})


def everybody(session: Session) -> Iterator[Person]:
    """Yield the persons that the caller may see, with their roles, the oldest first."""
    whole = persons(session).options(
        selectinload(Person.memberships).joinedload(Membership.project)
    )
    yield from session.scalars(whole.order_by(Person.id).execution_options(yield_per=500))


def named_person(session: Session, name: str) -> Person:
    """Return a person of an e-mail address or a reference; raises NotFound."""
    if "@" not in name:
        return find_person(session, name)
    person = person_of_email(session, name.strip().lower())
    if person is None:
        raise rights.not_there(Subject(Kind.PERSON, name))
    rights.require(session, Action.SEE, person)
    return person


def create_person(session: Session, clock: Clock, email: str, name: str) -> Person:
    """Make somebody who cannot sign in yet."""
    rights.require(session, Action.CREATE, Subject(Kind.PERSON, email))
    return add_person(session, clock, email, name, PersonState.INVITED)


def add_person(session: Session, clock: Clock, email: str, name: str, state: PersonState) -> Person:
    """Make a person; asks for no right. Raises Conflict when somebody has the address."""
    kept = checked_email(email)
    if person_of_email(session, kept) is not None:
        raise Conflict(f"somebody has the e-mail address {kept} already")
    person = Person(
        reference=f"P-{numbering.next_number(session)}",
        email=kept,
        name=checked_text("the name", name.strip(), NAME_LENGTH),
        state=state,
        created_at=clock.now(),
        memberships=[],
    )
    session.add(person)
    session.flush()
    return person


def rename_person(session: Session, person: Person, name: str) -> None:
    """Give a person another name."""
    rights.require(session, Action.CHANGE, person)
    person.name = checked_text("the name", name.strip(), NAME_LENGTH)


def readdress_person(session: Session, person: Person, email: str) -> None:
    """Give a person another e-mail address, which accounts elsewhere are known by."""
    rights.require(session, Action.ADMINISTER, person)
    kept = checked_email(email)
    other = person_of_email(session, kept)
    if other is not None and other is not person:
        raise Conflict(f"somebody has the e-mail address {kept} already")
    person.email = kept


def suspend_person(session: Session, person: Person) -> None:
    """Have nothing that a person shows count any more; raises Conflict for the last one who could
    undo it.
    """
    rights.require(session, Action.ADMINISTER, person)
    administrators = session.scalars(_ADMINISTRATORS.with_for_update()).all()
    if {each.person_id for each in administrators} == {person.id}:
        raise Conflict(f"{person.reference} is the last administrator; make another one first")
    person.suspend()


def admit_person(session: Session, person: Person) -> None:
    """Have what a person shows count again."""
    rights.require(session, Action.ADMINISTER, person)
    person.admit()


# --- projects


def projects(session: Session) -> Select[Any]:
    """Return a SELECT of the projects that the caller may see."""
    return rights.visible(
        session, select(Project), Kind.PROJECT, project=Project.id, owner=Project.owner_id
    )


def find_project(session: Session, reference: str, *, lock: bool = False) -> Project:
    """Return a project that the caller may see; raises NotFound."""
    statement = _PROJECT.with_for_update() if lock else _PROJECT
    project = session.scalar(statement, {"reference": reference})
    if project is None:
        raise rights.not_there(Subject(Kind.PROJECT, reference))
    rights.require(session, Action.SEE, project)
    return project


def create_project(
    session: Session,
    clock: Clock,
    title: str,
    *,
    owner: Person | None = None,
    organisation: Organisation | None = None,
) -> Project:
    """Make a project; its owner (without one, the caller) manages it and may order in it."""
    if owner is None:
        caller = caller_of(session)
        if caller.kind is not CallerKind.PERSON:
            raise Forbidden("a project belongs to a person: say to whom, or ask as one")
        owner = session.get_one(Person, caller.id)
    subject = Subject(Kind.PROJECT, title, owner_id=owner.id)
    rights.require(session, Action.CREATE, subject)
    now = clock.now()
    project = Project(
        reference=f"PROJ-{numbering.next_number(session)}",
        title=checked_text("the title", title.strip(), NAME_LENGTH),
        owner=owner,
        organisation=organisation,
        state=ProjectState.ACTIVE,
        created_at=now,
    )
    session.add(project)
    for role in (Role.PRODUCTION_MANAGER, Role.CUSTOMER):
        session.add(Membership(person=owner, project=project, role=role, created_at=now))
    session.flush()
    return project


def rename_project(session: Session, project: Project, title: str) -> None:
    """Give a project another title."""
    rights.require(session, Action.CHANGE, project)
    project.title = checked_text("the title", title.strip(), NAME_LENGTH)


def protect_project(session: Session, project: Project, *, needs_second_factor: bool) -> None:
    """Say whether who has a role in a project needs a second factor."""
    rights.require(session, Action.CHANGE, project)
    project.needs_second_factor = needs_second_factor


def assign_project(session: Session, project: Project, organisation: Organisation | None) -> None:
    """Say for which organisation a project is."""
    rights.require(session, Action.ADMINISTER, project)
    project.organisation = organisation


def move_project(session: Session, project: Project, state: ProjectState) -> None:
    """Open, suspend or archive a project; in one that is not open nothing can be changed."""
    archives = state == ProjectState.ARCHIVED
    rights.require(session, Action.DESTROY if archives else Action.ADMINISTER, project)
    project.move_to(state)


# --- memberships


def members(session: Session, project: Project) -> Select[Any]:
    """Return a SELECT of a project's memberships, with their persons."""
    rights.require(session, Action.SEE, _membership_of(project))
    return (
        select(Membership)
        .join(Membership.person)
        .options(contains_eager(Membership.person))
        .where(Membership.project_id == project.id)
    )


def roles_of(session: Session, person: Person, project: Project | None) -> list[Membership]:
    """Return the roles of a person in a project, or everywhere; asks for no right."""
    told = {"person": person.id, "project": None if project is None else project.id}
    return list(session.scalars(_ROLES, told))


def check_role(role: Role, project: Project | None) -> None:
    """Raise InvalidFields unless a role can be had there."""
    if role is Role.ADMINISTRATOR and project is not None:
        reason = "an administrator is one everywhere; production_manager is who manages a project"
        raise InvalidFields(f"{role} is no role in a project: {reason}", {"role": reason})


def find_for_membership(session: Session, project: Project, reference: str) -> Person:
    """Return a person who may be given roles in a project by the caller; raises NotFound.

    Persons that one may not see get in by an invitation, which they accept; then they are seen.
    """
    rights.require(session, Action.SEE, _membership_of(project))
    person = session.scalar(_PERSON, {"reference": reference})
    if person is not None and (
        roles_of(session, person, project)
        or rights.may(caller_of(session), Action.SEE, person.subject())
    ):
        return person
    raise NotFound(f"{reference} is nobody in {project.reference}; invite them")


def require_grant(session: Session, action: Action, project: Project | None, role: Role) -> None:
    """Raise unless the caller may give or take a role there.

    Who manages a project has its customers and operators in hand; what is about money, and what is
    everywhere, is the administrators'.
    """
    subject = _membership_of(project)
    rights.require(session, action, subject)
    if project is None or role not in rights.GIVEN_IN_PROJECTS:
        rights.require(session, Action.ADMINISTER, subject)


def add_role(
    session: Session, clock: Clock, person: Person, project: Project | None, role: Role
) -> Membership:
    """Give a person a role in a project, or everywhere; one that she has stays as it is."""
    check_role(role, project)
    require_grant(session, Action.CREATE, project, role)
    return grant(session, clock, person, project, role)


def grant(
    session: Session, clock: Clock, person: Person, project: Project | None, role: Role
) -> Membership:
    """Do what `add_role` does; asks for no right."""
    check_role(role, project)
    for membership in roles_of(session, person, project):
        if membership.role == role:
            return membership
    membership = Membership(person=person, project=project, role=role, created_at=clock.now())
    session.add(membership)
    session.flush()
    return membership


def remove_role(session: Session, person: Person, project: Project | None, role: Role) -> None:
    """Take a role from a person; raises Conflict for a project's last manager, or the last
    administrator.
    """
    require_grant(session, Action.DESTROY, project, role)
    if project is not None:
        # Two who take each other's role wait for each other here.
        session.scalar(_PROJECT.with_for_update(), {"reference": project.reference})
    elif role is Role.ADMINISTRATOR:
        held = session.scalars(_ADMINISTRATORS.with_for_update()).all()
        if {each.person_id for each in held} == {person.id}:
            raise Conflict(f"{person.reference} is the last administrator; make another one first")
    found = [each for each in roles_of(session, person, project) if each.role == role]
    if not found:
        raise NotFound(f"{person.reference} is no {role} {_place(project)}")
    if project is not None and role is Role.PRODUCTION_MANAGER:
        managers = session.scalar(_MANAGERS, {"project": project.id})
        if managers == 1:
            raise Conflict(
                f"{person.reference} is the last production_manager of {project.reference}; "
                "make another one first"
            )
    session.delete(found[0])
    session.flush()


def _membership_of(project: Project | None) -> Subject:
    if project is None:
        return Subject(Kind.MEMBERSHIP, "everywhere")
    return Subject(Kind.MEMBERSHIP, project.reference, project.id, project.owner_id)


def _place(project: Project | None) -> str:
    return "everywhere" if project is None else f"of {project.reference}"
