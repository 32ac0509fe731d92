"""The page of one's own account: name, password, tokens, sessions, roles."""

from datetime import timedelta

import segno
from flask import Response, request

from slapos.master.http import context, enrols, reads_only
from slapos.master.identity import entering, second_factor, service, sign_in, tokens
from slapos.master.identity.authentication import COOKIE
from slapos.master.identity.caller import caller_of
from slapos.master.identity.credentials import PersonalToken, SignIn
from slapos.master.identity.one_way import hash_of
from slapos.master.identity.rights import SCOPES
from slapos.master.identity.views import confirm_with, person_asking, roles_shown
from slapos.master.panel.page import FORMS, HOME, go, page
from slapos.master.panel.views import blueprint
from slapos.protocol.errors import InvalidFields

#: How many sessions are shown; who has more can end them and see the others then.
SHOWN = 50
DAYS = (7, 30, 90, 365)
FORMS |= {
    f"panel.{name}": "panel.show_account"
    for name in (
        *("rename", "change_password", "make_token", "revoke_token", "end_other_session"),
        *("begin_second_factor", "confirm_second_factor", "remove_second_factor"),
    )
}


@blueprint.get("/account")
@enrols
@reads_only
def show_account() -> Response:
    """Show one's own account."""
    return _account()


def _account(new_token: str | None = None, recovery_codes: list[str] | None = None) -> Response:
    session, clock = context().session, context().clock
    person = person_asking()
    box = entering.second_factor_box()
    begun = None if box is None else second_factor.begun(session, box, person)
    sessions = sign_in.sign_ins(session, clock, person.id).order_by(SignIn.id.desc()).limit(SHOWN)
    return page(
        "account.html",
        person=person,
        must_enrol=caller_of(session).must_enrol and recovery_codes is None,
        roles=roles_shown(person),
        tokens=session.scalars(tokens.tokens(session).order_by(PersonalToken.id)).all(),
        sessions=session.scalars(sessions).all(),
        present=hash_of(request.cookies.get(COOKIE, "")),
        now=clock.now(),
        scopes=SCOPES,
        days=DAYS,
        new_token=new_token,
        can_have_factor=box is not None,
        has_factor=second_factor.is_needed(session, person.id),
        begun=begun,
        picture=None if begun is None else segno.make(begun.uri).svg_data_uri(scale=4),
        recovery_codes=recovery_codes,
    )


@blueprint.post("/account/name")
def rename() -> Response:
    """Have another name."""
    service.rename_person(context().session, person_asking(), request.form.get("name", ""))
    return go(HOME)


@blueprint.post("/account/password")
def change_password() -> Response:
    """Have another password."""
    present, wanted = (request.form.get(name, "") for name in ("present_password", "password"))
    return entering.change_password(person_asking(), present, wanted, lambda _: go(HOME))


@blueprint.post("/account/second-factor")
@enrols
def begin_second_factor() -> Response:
    """Begin to have a second factor."""
    person, identifiers = person_asking(), context().identifiers
    second_factor.begin(context().session, identifiers, entering.needed_box(), person)
    return go(HOME)


@blueprint.post("/account/second-factor/confirmation")
@enrols
def confirm_second_factor() -> Response:
    """Confirm a second factor, and show the recovery codes, this once."""
    return _account(recovery_codes=confirm_with(request.form.get("code", "")))


@blueprint.post("/account/second-factor/removal")
def remove_second_factor() -> Response:
    """Have no second factor any more."""
    return entering.remove_second_factor(
        person_asking(), request.form.get("code", ""), lambda _: go(HOME)
    )


@blueprint.post("/account/tokens")
def make_token() -> Response:
    """Make a token, and show its secret, this once."""
    _token, secret = tokens.create_token(
        context().session,
        context().clock,
        context().identifiers,
        title=request.form.get("title", ""),
        scopes=request.form.getlist("scope"),
        expires_at=context().clock.now() + timedelta(days=_days()),
    )
    return _account(secret)


def _days() -> int:
    text = request.form.get("days", "")
    if text not in map(str, DAYS):
        reason = f"it can be {', '.join(map(str, DAYS))}"
        raise InvalidFields(f"the number of days cannot be used: {reason}", {"days": reason})
    return int(text)


@blueprint.post("/account/tokens/<int:number>/revocation")
def revoke_token(number: int) -> Response:
    """Revoke a token."""
    tokens.revoke_token(context().session, number)
    return go(HOME)


@blueprint.post("/account/sessions/<int:number>/end")
def end_other_session(number: int) -> Response:
    """End a session."""
    sign_in.end_one(context().session, number)
    return go(HOME)
