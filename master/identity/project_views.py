"""Persons, organisations, projects and their members over HTTP."""

from typing import Any

from flask import Blueprint, request

from slapos.master import rest
from slapos.master.http import context
from slapos.master.identity import invitations, organisations, service, shapes
from slapos.master.identity.caller import Role
from slapos.master.identity.credentials import Invitation
from slapos.master.identity.model import Membership, Organisation, Person, Project, ProjectState
from slapos.master.identity.views import roles_shown
from slapos.master.mail import outbox
from slapos.master.mail.texts import Occasion
from slapos.protocol.errors import Conflict, Forbidden, NotFound

blueprint = Blueprint("projects", __name__, url_prefix="/v1")

# --- persons


@blueprint.get("/persons")
@rest.operation(
    summary="Show persons, the oldest first", query=rest.PagedQuery, answer=shapes.PersonsShown
)
def show_persons(query: rest.PagedQuery) -> dict[str, Any]:
    """Show persons."""
    session = context().session
    found = rest.page(session, service.persons(session), [Person.id], query)
    return {"persons": found.items, "next": found.next}


@blueprint.post("/persons")
@rest.operation(
    summary="Make a person, who cannot sign in before she is invited",
    body=shapes.NewPerson,
    answer=shapes.PersonShown,
    status=201,
    errors=(Forbidden, Conflict),
)
def make_person(body: shapes.NewPerson) -> rest.Reply:
    """Make a person."""
    person = service.create_person(context().session, context().clock, body.email, body.name)
    shown = shapes.PersonShown.model_validate(person)
    return rest.Reply(shown, location=f"/v1/persons/{person.reference}")


@blueprint.get("/persons/<reference>")
@rest.operation(summary="Show a person", answer=shapes.PersonShown, errors=(NotFound,))
def show_person(reference: str) -> shapes.PersonShown:
    """Show a person."""
    return shapes.PersonShown.model_validate(service.find_person(context().session, reference))


@blueprint.patch("/persons/<reference>")
@rest.operation(
    summary="Change a person's name or e-mail address, suspend or admit her",
    body=shapes.ChangedPerson,
    answer=shapes.PersonShown,
    errors=(NotFound, Forbidden, Conflict),
    matches=True,
)
def change_person(reference: str, body: shapes.ChangedPerson) -> shapes.PersonShown:
    """Change a person."""
    session = context().session
    person = service.find_person(session, reference, lock=True)
    rest.check_match(shapes.PersonShown.model_validate(person))
    if body.name is not None:
        service.rename_person(session, person, body.name)
    if body.email is not None:
        _tell_of_another_address(person.email, body.email)
        service.readdress_person(session, person, body.email)
    if body.state is not None:
        suspends = body.state == "suspended"
        (service.suspend_person if suspends else service.admit_person)(session, person)
    session.flush()
    return shapes.PersonShown.model_validate(person)


def _tell_of_another_address(before: str | None, wanted: str) -> None:
    settings, clock = context().settings, context().clock
    if before is not None and before != service.checked_email(wanted):
        url = settings.public_url.rstrip("/") + outbox.ACCOUNT_PATH
        at = outbox.moment(clock.now())
        outbox.put(context().session, clock, settings, Occasion.EMAIL, before, url=url, at=at)


@blueprint.get("/persons/<reference>/roles")
@rest.operation(summary="Show a person's roles", answer=shapes.RolesShown, errors=(NotFound,))
def show_roles(reference: str) -> shapes.RolesShown:
    """Show a person's roles."""
    person = service.find_person(context().session, reference)
    return shapes.RolesShown(roles=roles_shown(person))


@blueprint.post("/persons/<reference>/roles")
@rest.operation(
    summary="Give a person a role everywhere",
    body=shapes.GivenRole,
    answer=shapes.RolesShown,
    errors=(NotFound, Forbidden),
)
def give_role(reference: str, body: shapes.GivenRole) -> shapes.RolesShown:
    """Give a person a role everywhere."""
    session = context().session
    person = service.find_person(session, reference)
    service.add_role(session, context().clock, person, None, body.role)
    session.expire(person, ["memberships"])
    return shapes.RolesShown(roles=roles_shown(person))


@blueprint.delete("/persons/<reference>/roles/<role>")
@rest.operation(
    summary="Take a role everywhere from a person",
    answer=None,
    errors=(NotFound, Forbidden, Conflict),
)
def take_role(reference: str, role: str) -> None:
    """Take a role everywhere from a person."""
    session = context().session
    service.remove_role(session, service.find_person(session, reference), None, _role(role))


# --- organisations


@blueprint.get("/organisations")
@rest.operation(
    summary="Show organisations, the oldest first",
    query=rest.PagedQuery,
    answer=shapes.OrganisationsShown,
)
def show_organisations(query: rest.PagedQuery) -> dict[str, Any]:
    """Show organisations."""
    session = context().session
    found = rest.page(session, organisations.organisations(session), [Organisation.id], query)
    return {"organisations": found.items, "next": found.next}


@blueprint.post("/organisations")
@rest.operation(
    summary="Make an organisation",
    body=shapes.OrganisationSaid,
    answer=shapes.OrganisationShown,
    status=201,
    errors=(Forbidden,),
)
def make_organisation(body: shapes.OrganisationSaid) -> rest.Reply:
    """Make an organisation."""
    organisation = organisations.create_organisation(
        context().session, context().clock, body.title, body.country, body.vat_code
    )
    shown = shapes.OrganisationShown.model_validate(organisation)
    return rest.Reply(shown, location=f"/v1/organisations/{organisation.reference}")


@blueprint.get("/organisations/<reference>")
@rest.operation(summary="Show an organisation", answer=shapes.OrganisationShown, errors=(NotFound,))
def show_organisation(reference: str) -> shapes.OrganisationShown:
    """Show an organisation."""
    found = organisations.find_organisation(context().session, reference)
    return shapes.OrganisationShown.model_validate(found)


@blueprint.put("/organisations/<reference>")
@rest.operation(
    summary="Say what an organisation is",
    body=shapes.OrganisationSaid,
    answer=shapes.OrganisationShown,
    errors=(NotFound, Forbidden),
    matches=True,
)
def change_organisation(reference: str, body: shapes.OrganisationSaid) -> shapes.OrganisationShown:
    """Say what an organisation is."""
    session = context().session
    organisation = organisations.find_organisation(session, reference, lock=True)
    rest.check_match(shapes.OrganisationShown.model_validate(organisation))
    organisations.change_organisation(
        session, organisation, body.title, body.country, body.vat_code
    )
    session.flush()
    return shapes.OrganisationShown.model_validate(organisation)


# --- projects


@blueprint.get("/projects")
@rest.operation(
    summary="Show projects, the oldest first", query=rest.PagedQuery, answer=shapes.ProjectsShown
)
def show_projects(query: rest.PagedQuery) -> dict[str, Any]:
    """Show projects."""
    session = context().session
    found = rest.page(session, service.projects(session), [Project.id], query)
    return {"projects": [_project(each) for each in found], "next": found.next}


@blueprint.post("/projects")
@rest.operation(
    summary="Make a project; its owner manages it and may order in it",
    body=shapes.NewProject,
    answer=shapes.ProjectShown,
    status=201,
    errors=(NotFound, Forbidden),
)
def make_project(body: shapes.NewProject) -> rest.Reply:
    """Make a project."""
    session = context().session
    project = service.create_project(
        session,
        context().clock,
        body.title,
        owner=None if body.owner is None else service.find_person(session, body.owner),
        organisation=None
        if body.organisation is None
        else organisations.find_organisation(session, body.organisation),
    )
    return rest.Reply(_project(project), location=f"/v1/projects/{project.reference}")


@blueprint.get("/projects/<reference>")
@rest.operation(summary="Show a project", answer=shapes.ProjectShown, errors=(NotFound,))
def show_project(reference: str) -> shapes.ProjectShown:
    """Show a project."""
    return _project(service.find_project(context().session, reference))


@blueprint.patch("/projects/<reference>")
@rest.operation(
    summary="Change a project, suspend, open or archive it",
    body=shapes.ChangedProject,
    answer=shapes.ProjectShown,
    errors=(NotFound, Forbidden, Conflict),
    matches=True,
)
def change_project(reference: str, body: shapes.ChangedProject) -> shapes.ProjectShown:
    """Change a project."""
    session = context().session
    project = service.find_project(session, reference, lock=True)
    rest.check_match(_project(project))
    if body.title is not None:
        service.rename_project(session, project, body.title)
    if body.organisation is not None:
        organisation = organisations.find_organisation(session, body.organisation)
        service.assign_project(session, project, organisation)
    if body.state is not None:
        service.move_project(session, project, body.state)
    if body.needs_second_factor is not None:
        service.protect_project(session, project, needs_second_factor=body.needs_second_factor)
    session.flush()
    return _project(project)


def _project(project: Project) -> shapes.ProjectShown:
    organisation = project.organisation
    return shapes.ProjectShown(
        reference=project.reference,
        title=project.title,
        state=ProjectState(project.state),
        owner=project.owner.reference,
        organisation=None if organisation is None else organisation.reference,
        needs_second_factor=project.needs_second_factor,
        created_at=project.created_at,
    )


# --- members


@blueprint.get("/projects/<reference>/members")
@rest.operation(
    summary="Show a project's members, the first one first",
    query=rest.PagedQuery,
    answer=shapes.MembersShown,
    errors=(NotFound, Forbidden),
)
def show_members(reference: str, query: rest.PagedQuery) -> dict[str, Any]:
    """Show a project's members."""
    session = context().session
    statement = service.members(session, service.find_project(session, reference))
    found = rest.page(session, statement, [Membership.id], query)
    return {"members": [_member(each) for each in found], "next": found.next}


@blueprint.post("/projects/<reference>/members")
@rest.operation(
    summary="Give a role to somebody who is in the project already, or whom you may see",
    body=shapes.NewMember,
    answer=shapes.MemberShown,
    status=201,
    errors=(NotFound, Forbidden),
)
def add_member(reference: str, body: shapes.NewMember) -> shapes.MemberShown:
    """Give somebody a role in a project."""
    session = context().session
    project = service.find_project(session, reference)
    person = service.find_for_membership(session, project, body.person)
    return _member(service.add_role(session, context().clock, person, project, body.role))


@blueprint.delete("/projects/<reference>/members/<person>/<role>")
@rest.operation(
    summary="Take a role in the project from a person",
    answer=None,
    errors=(NotFound, Forbidden, Conflict),
)
def remove_member(reference: str, person: str, role: str) -> None:
    """Take a role in a project from a person."""
    session = context().session
    project = service.find_project(session, reference)
    found = service.find_for_membership(session, project, person)
    service.remove_role(session, found, project, _role(role))


def _member(membership: Membership) -> shapes.MemberShown:
    return shapes.MemberShown(
        person=membership.person.reference,
        name=membership.person.name,
        role=Role(membership.role),
        created_at=membership.created_at,
    )


def _role(word: str) -> Role:
    try:
        return Role(word)
    except ValueError as error:
        raise NotFound(f"there is no role {word[:60]!r}") from error


# --- invitations


@blueprint.get("/projects/<reference>/invitations")
@rest.operation(
    summary="Show a project's invitations that nobody has accepted, the oldest first",
    query=rest.PagedQuery,
    answer=shapes.InvitationsShown,
    errors=(NotFound, Forbidden),
)
def show_invitations(reference: str, query: rest.PagedQuery) -> dict[str, Any]:
    """Show a project's invitations."""
    session = context().session
    statement = invitations.invitations(session, service.find_project(session, reference))
    found = rest.page(session, statement, [Invitation.id], query)
    return {"invitations": [_invitation(each) for each in found], "next": found.next}


@blueprint.post("/projects/<reference>/invitations")
@rest.operation(
    summary="Invite somebody into a project; the link is told only now",
    body=shapes.NewInvitation,
    answer=shapes.InvitationMade,
    status=201,
    errors=(NotFound, Forbidden),
)
def invite(reference: str, body: shapes.NewInvitation) -> rest.Reply:
    """Invite somebody into a project."""
    session = context().session
    project = service.find_project(session, reference)
    invitation, secret = invitations.invite(
        session,
        context().clock,
        context().identifiers,
        email=body.email,
        role=body.role,
        project=project,
    )
    link = invitations.link_of(secret, context().settings.public_url or request.url_root)
    clock, settings = context().clock, context().settings
    mailed = outbox.invite(session, clock, settings, invitation, link)
    return rest.Reply(_invitation(invitation) | {"token": secret, "link": link, "mailed": mailed})


@blueprint.delete("/projects/<reference>/invitations/<invitation>")
@rest.operation(summary="Withdraw an invitation", answer=None, errors=(NotFound, Forbidden))
def withdraw_invitation(reference: str, invitation: str) -> None:
    """Withdraw an invitation."""
    session = context().session
    project = service.find_project(session, reference)
    invitations.withdraw(session, project, invitation)


def _invitation(invitation: Invitation) -> dict[str, Any]:
    inviting = invitation.invited_by
    return {
        "reference": invitation.reference,
        "email": invitation.email,
        "role": invitation.role,
        "invited_by": inviting and inviting.reference,
        "created_at": invitation.created_at,
        "expires_at": invitation.expires_at,
    }
