"""Who is who over HTTP: oneself, one's tokens and sessions, how one gets in and out."""

from typing import Any

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from slapos.master import rest
from slapos.master.http import context, enrols, public
from slapos.master.identity import (
    entering,
    forgotten,
    invitations,
    links,
    second_factor,
    service,
    shapes,
    sign_in,
    tokens,
)
from slapos.master.identity.authentication import COOKIE
from slapos.master.identity.caller import CallerKind, caller_of
from slapos.master.identity.credentials import PersonalToken, SignIn
from slapos.master.identity.links import LinkKind
from slapos.master.identity.model import Person
from slapos.master.traffic.refused import check_guesses
from slapos.protocol.errors import (
    Conflict,
    Forbidden,
    InvalidFields,
    NotFound,
    SecondFactorNeeded,
    SecretInvalid,
    SignInRefused,
    TooManyAttempts,
)

blueprint = Blueprint("identity", __name__, url_prefix="/v1")


def _signed_in(reference: str) -> tuple[dict[str, str], int]:
    return shapes.SignedIn(person=reference).model_dump(), 200


# --- in and out


@blueprint.post("/setup")
@public
@rest.operation(
    summary="Become the first administrator, by the link that the master printed",
    body=shapes.SetUp,
    answer=shapes.SignedIn,
    errors=(SecretInvalid, TooManyAttempts),
)
def set_up(body: shapes.SetUp) -> Response:
    """Make the first administrator."""
    check_guesses()
    links.find(context().session, context().clock, LinkKind.SETUP, body.token)
    return set_up_with(body.token, body.name, body.email, body.password, body.project, _signed_in)


def set_up_with(
    token: str, name: str, email: str, password: str, project: str | None, respond: entering.Respond
) -> Response:
    """Return the answer to who becomes the first administrator."""
    clock = context().clock

    def who(session: Session) -> Person:
        person = links.set_up(session, clock, token, email=email, name=name)
        if project:
            service.create_project(session, clock, project, owner=person)
        return person

    return entering.enter_with_password(password, [name, email], who, respond)


@blueprint.post("/sign-in")
@public
@rest.operation(
    summary="Sign in; the session is in the cookie of the answer",
    body=shapes.Credentials,
    answer=shapes.SignedIn,
    errors=(SignInRefused, SecondFactorNeeded, TooManyAttempts),
)
def start_session(body: shapes.Credentials) -> Response:
    """Sign in."""
    return entering.sign_in_by_password(body.email, body.password, body.code, _signed_in, _ask_code)


def _ask_code(_reference: str) -> ResponseReturnValue:
    raise SecondFactorNeeded("the password is right; send the code of the second factor as well")


@blueprint.post("/sign-out")
@public
@rest.operation(summary="End the session of the cookie", answer=None)
def end_session() -> Response:
    """Sign out."""
    cookie = request.cookies.get(COOKIE)
    if cookie:
        sign_in.end(context().session, cookie)
    return entering.with_cookie(Response(status=204), None)


@blueprint.post("/forgotten-password")
@public
@rest.operation(
    summary="Have a link for a new password sent by e-mail, if there is such an account",
    body=shapes.Forgotten,
    answer=None,
    errors=(Conflict, TooManyAttempts),
)
def send_link(body: shapes.Forgotten) -> None:
    """Send a link for a new password."""
    forgotten.send_link(body.email)


@blueprint.post("/new-password")
@public
@rest.operation(
    summary="Have another password, by a link for it; it ends all sessions and tokens",
    body=shapes.NewPassword,
    answer=shapes.SignedIn,
    errors=(SecretInvalid, TooManyAttempts),
)
def replace_password(body: shapes.NewPassword) -> Response:
    """Have another password, by a link for it."""
    check_guesses()
    return replace_password_with(body.token, body.password, _signed_in)


def replace_password_with(token: str, password: str, respond: entering.Respond) -> Response:
    """Return the answer to who has a link for a new password."""
    session, clock = context().session, context().clock
    link = links.find(session, clock, LinkKind.RESET, token)
    person = session.get_one(Person, link.person_id)

    def who(session: Session) -> Person:
        found = links.use_reset_link(session, clock, token)
        sign_in.forget_all(session, found.id)
        return found

    return entering.enter_with_password(password, [person.name, person.email or ""], who, respond)


@blueprint.post("/invitations/acceptance")
@public
@rest.operation(
    summary="Accept an invitation: signed in, or with a name and a password for a new account",
    body=shapes.Acceptance,
    answer=shapes.SignedIn,
    errors=(SecretInvalid, Conflict, Forbidden, TooManyAttempts),
)
def accept_invitation(body: shapes.Acceptance) -> shapes.SignedIn | Response:
    """Accept an invitation."""
    check_guesses()
    if body.password is None:
        person = invitations.accept(context().session, context().clock, body.token)
        return shapes.SignedIn(person=person.reference)
    if body.name is None:
        reason = "it is needed for a new account"
        raise InvalidFields(f"the name is missing: {reason}", {"name": reason})
    return accept_with(body.token, body.name, body.password, _signed_in)


def accept_with(token: str, name: str, password: str, respond: entering.Respond) -> Response:
    """Return the answer to who accepts an invitation with a new account."""
    clock = context().clock
    email = invitations.find(context().session, clock, token).email

    def who(session: Session) -> Person:
        return invitations.accept_as_new(session, clock, token, name)

    return entering.enter_with_password(password, [name, email], who, respond)


# --- oneself


def person_asking() -> Person:
    """Return the person who asks; raises Forbidden for a node or an instance."""
    caller = caller_of(context().session)
    if caller.kind is not CallerKind.PERSON:
        raise Forbidden("only persons have an account")
    return context().session.get_one(Person, caller.id)


@blueprint.get("/me")
@enrols
@rest.operation(summary="Show who asks", answer=shapes.MeShown)
def show_me() -> shapes.MeShown:
    """Show who asks."""
    caller = caller_of(context().session)
    if caller.kind is not CallerKind.PERSON:
        kind, name = caller.kind, caller.name
        return shapes.MeShown(
            kind=kind, reference=name, name=None, email=None, roles=[], scopes=None
        )
    return _me()


def _me() -> shapes.MeShown:
    person, caller = person_asking(), caller_of(context().session)
    return shapes.MeShown(
        kind=caller.kind,
        reference=person.reference,
        name=person.name,
        email=person.email,
        roles=roles_shown(person),
        scopes=None if caller.scopes is None else sorted(caller.scopes),
        must_enrol=caller.must_enrol,
    )


def roles_shown(person: Person) -> list[shapes.RoleShown]:
    """Return a person's roles, as they are answered."""
    told: list[dict[str, Any]] = [
        {"project": each.project and each.project.reference, "role": each.role}
        for each in person.memberships
    ]
    told.sort(key=lambda each: (each["project"] or "", each["role"]))
    return [shapes.RoleShown.model_validate(each) for each in told]


@blueprint.patch("/me")
@rest.operation(summary="Have another name", body=shapes.Renamed, answer=shapes.MeShown)
def rename_me(body: shapes.Renamed) -> shapes.MeShown:
    """Have another name."""
    service.rename_person(context().session, person_asking(), body.name)
    return _me()


@blueprint.put("/me/password")
@rest.operation(
    summary="Have another password; it ends all other sessions",
    body=shapes.ChangedPassword,
    answer=None,
    errors=(SignInRefused, TooManyAttempts),
)
def change_password(body: shapes.ChangedPassword) -> Response:
    """Have another password."""
    return entering.change_password(
        person_asking(), body.present, body.password, lambda _: Response(status=204)
    )


@blueprint.post("/me/second-factor")
@enrols
@rest.operation(
    summary="Begin to have a second factor; it counts once a code of it is confirmed",
    answer=shapes.FactorBegun,
    errors=(Conflict, Forbidden),
)
def begin_second_factor() -> shapes.FactorBegun:
    """Begin to have a second factor."""
    session, identifiers = context().session, context().identifiers
    begun = second_factor.begin(session, identifiers, entering.needed_box(), person_asking())
    return shapes.FactorBegun(secret=begun.secret, uri=begun.uri)


@blueprint.post("/me/second-factor/confirmation")
@enrols
@rest.operation(
    summary="Show a first code: from then on one is asked for; recovery codes are told only now",
    body=shapes.TypedCode,
    answer=shapes.RecoveryCodes,
    errors=(Conflict, Forbidden),
)
def confirm_second_factor(body: shapes.TypedCode) -> shapes.RecoveryCodes:
    """Confirm a second factor."""
    return shapes.RecoveryCodes(recovery_codes=confirm_with(body.code))


def confirm_with(code: str) -> list[str]:
    """Confirm the caller's second factor, and return the recovery codes."""
    return second_factor.confirm(
        context().session,
        context().clock,
        context().identifiers,
        entering.needed_box(),
        person_asking(),
        code,
    )


@blueprint.post("/me/second-factor/removal")
@rest.operation(
    summary="Have no second factor any more, by a last code of it",
    body=shapes.TypedCode,
    answer=None,
    errors=(SignInRefused, TooManyAttempts, Forbidden),
)
def remove_second_factor(body: shapes.TypedCode) -> Response:
    """Remove the second factor."""
    return entering.remove_second_factor(person_asking(), body.code, lambda _: Response(status=204))


@blueprint.get("/me/sessions")
@rest.operation(
    summary="Show where one has signed in", query=rest.PagedQuery, answer=shapes.SessionsShown
)
def show_sessions(query: rest.PagedQuery) -> dict[str, Any]:
    """Show where one has signed in."""
    session = context().session
    statement = sign_in.sign_ins(session, context().clock, person_asking().id)
    found = rest.page(session, statement, [SignIn.id], query)
    return {"sessions": found.items, "next": found.next}


@blueprint.delete("/me/sessions/<int:number>")
@rest.operation(summary="Sign out there", answer=None, errors=(NotFound,))
def end_other_session(number: int) -> None:
    """End a session."""
    sign_in.end_one(context().session, number)


# --- tokens


@blueprint.get("/tokens")
@rest.operation(
    summary="Show one's tokens, the oldest first",
    query=rest.PagedQuery,
    answer=shapes.TokensShown,
)
def show_tokens(query: rest.PagedQuery) -> dict[str, Any]:
    """Show one's tokens."""
    session = context().session
    found = rest.page(session, tokens.tokens(session), [PersonalToken.id], query)
    return {"tokens": [_token(each) for each in found], "next": found.next}


@blueprint.post("/tokens")
@rest.operation(
    summary="Make a token; its secret is told only now",
    body=shapes.NewToken,
    answer=shapes.TokenMade,
    status=201,
    errors=(Forbidden, Conflict),
)
def make_token(body: shapes.NewToken) -> rest.Reply:
    """Make a token."""
    token, secret = tokens.create_token(
        context().session,
        context().clock,
        context().identifiers,
        title=body.title,
        scopes=body.scopes,
        expires_at=body.expires_at,
    )
    return rest.Reply({**_token(token), "token": secret}, location=f"/v1/tokens/{token.id}")


@blueprint.delete("/tokens/<int:number>")
@rest.operation(summary="Revoke a token", answer=None, errors=(NotFound,))
def revoke_token(number: int) -> None:
    """Revoke a token."""
    tokens.revoke_token(context().session, number)


def _token(token: PersonalToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "title": token.title,
        "scopes": token.scopes.split(),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "used_at": token.used_at,
    }
