"""Signing in at an OpenID provider: on the way there, and on the way back."""

from pathlib import Path

from flask import Response, current_app, request
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from slapos.master import http
from slapos.master.http import public
from slapos.master.identity import entering, links, openid, second_factor, sign_in
from slapos.master.identity.authentication import caller_of_person
from slapos.master.identity.caller import serve
from slapos.master.identity.openid import Dialogue, Provider, Waiting
from slapos.master.identity.sign_in import Entered
from slapos.master.panel.page import FORMS, code_path, go, local_path
from slapos.master.panel.views import blueprint
from slapos.master.settings import Settings
from slapos.protocol.errors import InvalidConfiguration, NotFound, SecretInvalid, SignInRefused
from slapos.system.clock import Clock

OPENID = "slapos_openid"
#: Binds the way back to the browser that was sent away.
STATE_COOKIE = "__Host-slapos-openid"
BACK = "sign-in/openid/back"
FORMS["panel.come_back"] = "panel.show_sign_in"


def openid_dialogue(settings: Settings, clock: Clock) -> Dialogue | None:
    """Return how the provider of the settings is spoken with, None when there is none."""
    if settings.openid_client_secret_file is None:
        return None
    provider = Provider(
        issuer=settings.openid_issuer,
        client_id=settings.openid_client_id,
        client_secret=_secret(settings.openid_client_secret_file),
        title=settings.openid_title or settings.openid_issuer,
    )
    return Dialogue(provider, clock)


def _secret(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise InvalidConfiguration(
            f"openid_client_secret_file {path} cannot be read: {error.strerror}"
        ) from error


def dialogue() -> Dialogue:
    """Return how the provider is spoken with; raises NotFound when there is none."""
    found = current_app.extensions[OPENID]
    if not isinstance(found, Dialogue):
        raise NotFound("this master has no OpenID provider; sign in with a password")
    return found


def _redirect_uri() -> str:
    url = http.assembly().settings.public_url or request.url_root
    return f"{url.rstrip('/')}/{BACK}"


@blueprint.get("/sign-in/openid")
@public
def go_to_provider() -> Response:
    """Send the browser to the provider."""
    path, speaking, redirect = local_path(request.args.get("next")), dialogue(), _redirect_uri()

    def make() -> ResponseReturnValue:
        parts = http.assembly()
        state, waiting = http.in_transaction(
            parts, lambda session: openid.begin(session, parts.clock, parts.identifiers, path)
        )
        answer = go(speaking.address(state, waiting, redirect))
        return entering.with_secret(answer, STATE_COOKIE, state, openid.LIFE)

    return http.Elsewhere(make)


@blueprint.get("/sign-in/openid/back")
@public
def come_back() -> Response:
    """Sign in who comes back from the provider."""
    state, code = request.args.get("state", ""), request.args.get("code", "")
    if not state or request.cookies.get(STATE_COOKIE) != state:
        raise SecretInvalid("this browser was not sent to the provider; sign in again")
    speaking, redirect = dialogue(), _redirect_uri()
    address, agent = request.remote_addr or "", entering.user_agent()

    def make() -> ResponseReturnValue:
        parts = http.assembly()
        waiting: Waiting = http.in_transaction(
            parts, lambda session: openid.come_back(session, parts.clock, state)
        )
        if not code:
            raise SignInRefused("the provider has not let you in")
        claims = speaking.claims(code, waiting, redirect)

        def enter(session: Session) -> Entered:
            person = openid.person_of(session, parts.clock, claims)
            caller = caller_of_person(session, person.id)
            if caller is None:
                raise SignInRefused("you may not sign in; ask an administrator")
            serve(session, caller)
            clock, identifiers = parts.clock, parts.identifiers
            if second_factor.is_needed(session, person.id):
                secret = links.make_code_link(session, clock, identifiers, person.id)
                return Entered(person.id, secret, awaits_code=True)
            secret = sign_in.start(session, clock, identifiers, person.id, address, agent)
            return Entered(person.id, secret)

        entered = http.in_transaction(parts, enter)
        if entered.awaits_code:
            answer = entering.with_secret(
                go(code_path(waiting.path)), entering.CODE_COOKIE, entered.secret, links.CODE_LIFE
            )
        else:
            answer = entering.with_cookie(go(waiting.path), entered.secret)
        return entering.with_secret(answer, STATE_COOKIE, None, openid.LIFE)

    return http.Elsewhere(make)
