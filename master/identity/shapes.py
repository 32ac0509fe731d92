"""What REST v1 takes and answers of people and what they belong to."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from slapos.master import rest
from slapos.master.identity.caller import CallerKind, Role
from slapos.master.identity.model import PersonState, ProjectState

Name = Annotated[str, Field(min_length=1, max_length=200)]
Email = Annotated[str, Field(max_length=320, description="An e-mail address.")]
Secret = Annotated[str, Field(max_length=200, description="What the link ends with.")]
AnyPassword = Annotated[str, Field(max_length=1000)]
#: A word in JSON is one of these; `strict` would have it be an object of ours.
RoleName = Annotated[Role, Field(strict=False)]


class SetUp(rest.Body):
    """Who becomes the first administrator."""

    token: Secret
    name: Name
    email: Email
    password: AnyPassword
    project: Annotated[Name | None, Field(description="The title of a first project.")] = None


class Credentials(rest.Body):
    """What somebody shows to sign in."""

    email: Email
    password: AnyPassword
    code: Annotated[
        str | None, Field(max_length=60, description="Of the second factor, when there is one.")
    ] = None


class FactorBegun(rest.Answer):
    """What a device needs to make codes: a secret in base32, and the same as a URI."""

    secret: str
    uri: str


class TypedCode(rest.Body):
    """A code that a device shows, or a recovery code."""

    code: Annotated[str, Field(max_length=60)]


class RecoveryCodes(rest.Answer):
    """What stands in for a code, once each; they are told only now."""

    recovery_codes: list[str]


class Acceptance(rest.Body):
    """Who accepts an invitation: signed in, or with a name and a password for a new account."""

    token: Secret
    name: Name | None = None
    password: AnyPassword | None = None


class Forgotten(rest.Body):
    """Whose password was forgotten."""

    email: Email


class NewPassword(rest.Body):
    """A password instead of one that was forgotten."""

    token: Secret
    password: AnyPassword


class ChangedPassword(rest.Body):
    """A password instead of the present one."""

    present: AnyPassword
    password: AnyPassword


class SignedIn(rest.Answer):
    """Who has signed in; the session is in the cookie."""

    person: str


class RoleShown(rest.Answer):
    """A role; without a project it is one everywhere."""

    project: str | None
    role: Role


class MeShown(rest.Answer):
    """Who asks: a person, a node or an instance. `scopes` are those of its token."""

    kind: CallerKind
    reference: str
    name: str | None
    email: str | None
    roles: list[RoleShown]
    scopes: list[str] | None
    must_enrol: Annotated[
        bool, Field(description="Her roles need a second factor, and she has none: nothing else.")
    ] = False


class Renamed(rest.Body):
    """Another name."""

    name: Name


class SessionShown(rest.Answer):
    """Where the caller has signed in; `used_at` is so to five minutes."""

    id: int
    created_at: rest.Time
    used_at: rest.Time
    expires_at: rest.Time
    address: str
    agent: str


class SessionsShown(rest.Paged):
    """Sessions, the oldest first."""

    sessions: list[SessionShown]


class NewToken(rest.Body):
    """A token that is wanted."""

    title: Name
    scopes: list[Literal["read", "order", "operate"]]
    expires_at: Annotated[AwareDatetime, Field(strict=False, description="Within a year.")]


class TokenShown(rest.Answer):
    """A token; `used_at` is so to the hour."""

    id: int
    title: str
    scopes: list[str]
    created_at: rest.Time
    expires_at: rest.Time
    used_at: rest.Time | None


class TokenMade(TokenShown):
    """A new token, with its secret, which is told only now."""

    token: str


class TokensShown(rest.Paged):
    """Tokens, the oldest first."""

    tokens: list[TokenShown]


class NewPerson(rest.Body):
    """Somebody who cannot sign in before she is invited."""

    email: Email
    name: Name


class ChangedPerson(rest.Body):
    """What is to be otherwise of a person."""

    name: Name | None = None
    email: Email | None = None
    state: Literal["active", "suspended"] | None = None


class PersonShown(rest.Answer):
    """A person."""

    reference: str
    name: str
    email: str | None
    state: PersonState
    created_at: rest.Time


class PersonsShown(rest.Paged):
    """Persons, the oldest first."""

    persons: list[PersonShown]


class OrganisationSaid(rest.Body):
    """What an organisation is."""

    title: Name
    country: Annotated[str | None, Field(description="ISO 3166-1, two letters.")] = None
    vat_code: Annotated[str | None, Field(max_length=40)] = None


class OrganisationShown(rest.Answer):
    """An organisation."""

    reference: str
    title: str
    country: str | None
    vat_code: str | None
    created_at: rest.Time


class OrganisationsShown(rest.Paged):
    """Organisations, the oldest first."""

    organisations: list[OrganisationShown]


class NewProject(rest.Body):
    """A project; without an owner it is the caller's."""

    title: Name
    owner: str | None = None
    organisation: str | None = None


class ChangedProject(rest.Body):
    """What is to be otherwise of a project."""

    title: Name | None = None
    organisation: str | None = None
    state: Annotated[ProjectState | None, Field(strict=False)] = None
    needs_second_factor: bool | None = None


class ProjectShown(rest.Answer):
    """A project."""

    reference: str
    title: str
    state: ProjectState
    owner: str
    organisation: str | None
    needs_second_factor: Annotated[
        bool, Field(description="Whoever has a role in it has to have a second factor.")
    ]
    created_at: rest.Time


class ProjectsShown(rest.Paged):
    """Projects, the oldest first."""

    projects: list[ProjectShown]


class NewMember(rest.Body):
    """A role for a person."""

    person: str
    role: RoleName


class MemberShown(rest.Answer):
    """A role that a person has in a project."""

    person: str
    name: str
    role: Role
    created_at: rest.Time


class MembersShown(rest.Paged):
    """Members, the first one first; who has two roles comes twice."""

    members: list[MemberShown]


class GivenRole(rest.Body):
    """A role everywhere."""

    role: RoleName


class RolesShown(rest.Answer):
    """Roles of a person."""

    roles: list[RoleShown]


class NewInvitation(rest.Body):
    """Who is invited, and as what."""

    email: Email
    role: RoleName


class InvitationShown(rest.Answer):
    """An invitation that nobody has accepted."""

    reference: str
    email: str
    role: Role
    invited_by: str | None
    created_at: rest.Time
    expires_at: rest.Time


class InvitationMade(InvitationShown):
    """A new invitation, with the link to be given to who is invited; it is told only now."""

    token: str
    mailed: Annotated[bool, Field(description="Whether the link is sent by e-mail as well.")]
    link: str


class InvitationsShown(rest.Paged):
    """Invitations, the oldest first."""

    invitations: list[InvitationShown]
