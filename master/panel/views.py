"""Pages for coming in: the setup link, signing in and out, invitations, a new password."""

from pathlib import Path

from flask import Blueprint, Response, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from slapos.master.http import context, public, reads_only
from slapos.master.identity import entering, forgotten, invitations, links, sign_in
from slapos.master.identity import views as identity
from slapos.master.identity.authentication import COOKIE
from slapos.master.identity.caller import CallerKind, caller_of
from slapos.master.identity.links import LinkKind
from slapos.master.identity.model import Person
from slapos.master.panel.page import (
    FORMS,
    HOME,
    SIGN_IN,
    answer_error,
    answer_http_error,
    code_path,
    go,
    local_path,
    page,
)
from slapos.master.traffic.refused import check_guesses
from slapos.protocol.errors import SlapOSError

blueprint = Blueprint("panel", __name__, template_folder="templates")
blueprint.register_error_handler(SlapOSError, answer_error)
blueprint.register_error_handler(HTTPException, answer_http_error)

STYLE = Path(__file__).with_name("panel.css")
FORMS |= {
    "panel.set_up": "panel.show_setup",
    "panel.start_session": "panel.show_sign_in",
    "panel.finish_session": "panel.show_code",
    "panel.send_link": "panel.show_forgotten",
    "panel.accept": "panel.show_invitation",
    "panel.replace_password": "panel.show_new_password",
}


def _home(_reference: str) -> Response:
    return go(HOME)


def _text(name: str) -> str:
    return request.form.get(name, "")


def _token() -> str:
    """Return the secret of a link: in its URL, or in the form that it has led to."""
    check_guesses()
    return request.form.get("token") or request.args.get("token", "")


def is_signed_in() -> bool:
    """Return whether a person asks."""
    return caller_of(context().session).kind is CallerKind.PERSON


@blueprint.get("/panel.css")
@public
def show_style() -> Response:
    """Send the style of all pages."""
    response = Response(STYLE.read_bytes(), content_type="text/css; charset=utf-8")
    response.headers["Cache-Control"] = "public, max-age=600"
    return response


@blueprint.get("/")
@public
def show_home() -> Response:
    """Go where something is to be seen."""
    return go(HOME if is_signed_in() else SIGN_IN)


@blueprint.get("/setup")
@public
@reads_only
def show_setup() -> Response:
    """Show the form for the first administrator."""
    links.find(context().session, context().clock, LinkKind.SETUP, _token())
    return page("setup.html", token=_token())


@blueprint.post("/setup")
@public
def set_up() -> Response:
    """Make the first administrator."""
    links.find(context().session, context().clock, LinkKind.SETUP, _token())
    return identity.set_up_with(
        _token(), _text("name"), _text("email"), _text("password"), _text("project") or None, _home
    )


@blueprint.get("/sign-in")
@public
@reads_only
def show_sign_in() -> Response:
    """Show the form to sign in."""
    wanted = local_path(request.values.get("next"))
    if is_signed_in() and request.method == "GET":
        return go(wanted)
    speaking = current_app.extensions.get("slapos_openid")
    title = speaking.provider.title if speaking is not None else ""
    can_be_sent = forgotten.can_be_sent()
    return page("sign_in.html", next=wanted, openid=title, can_be_sent=can_be_sent)


@blueprint.get("/forgotten-password")
@public
@reads_only
def show_forgotten() -> Response:
    """Show the form of who has forgotten her password."""
    return page("forgotten.html", can_be_sent=forgotten.can_be_sent(), sent=False)


@blueprint.post("/forgotten-password")
@public
def send_link() -> Response:
    """Send a link for a new password, and say so, whether there is such an account or not."""
    forgotten.send_link(_text("email"))
    return page("forgotten.html", can_be_sent=True, sent=True)


@blueprint.post("/sign-in")
@public
def start_session() -> Response:
    """Sign in."""
    wanted = local_path(_text("next"))
    return entering.sign_in_by_password(
        _text("email"),
        _text("password"),
        None,
        lambda _: go(wanted),
        lambda _: go(code_path(wanted)),
    )


@blueprint.get("/sign-in/code")
@public
@reads_only
def show_code() -> Response:
    """Show the form for the code of a second factor."""
    secret = request.cookies.get(entering.CODE_COOKIE, "")
    links.find(context().session, context().clock, LinkKind.CODE, secret)
    return page("code.html", next=local_path(request.values.get("next")))


@blueprint.post("/sign-in/code")
@public
def finish_session() -> Response:
    """Sign in with the code of a second factor, after the password."""
    wanted = local_path(_text("next"))
    return entering.sign_in_by_code(_text("code"), lambda _: go(wanted))


@blueprint.post("/sign-out")
@public
def end_session() -> Response:
    """Sign out."""
    cookie = request.cookies.get(COOKIE)
    if cookie:
        sign_in.end(context().session, cookie)
    return entering.with_cookie(go(SIGN_IN), None)


@blueprint.get("/invitation")
@public
@reads_only
def show_invitation() -> Response:
    """Show what one is invited to, and how to accept it."""
    session = context().session
    invitation = invitations.find(session, context().clock, _token())
    person = None
    if is_signed_in():
        person = session.get_one(Person, caller_of(session).id)
    return page(
        "invitation.html",
        token=_token(),
        invitation=invitation,
        person=person,
        has_account=invitations.has_account(session, invitation),
        here=f"{invitations.PATH}?token={_token()}",
    )


@blueprint.post("/invitation")
@public
def accept() -> ResponseReturnValue:
    """Accept an invitation, as who has signed in or with a new account."""
    if is_signed_in():
        invitations.accept(context().session, context().clock, _token())
        return go(HOME)
    return identity.accept_with(_token(), _text("name"), _text("password"), _home)


@blueprint.get("/new-password")
@public
@reads_only
def show_new_password() -> Response:
    """Show the form for a new password."""
    session = context().session
    link = links.find(session, context().clock, LinkKind.RESET, _token())
    person = session.get_one(Person, link.person_id)
    return page("new_password.html", token=_token(), person=person)


@blueprint.post("/new-password")
@public
def replace_password() -> Response:
    """Have a new password."""
    return identity.replace_password_with(_token(), _text("password"), _home)
