"""How a person gets in over HTTP, for the views of `/v1` and for the pages alike.

A password is hashed when the view's transaction is over; what follows is another one.
"""

from collections.abc import Callable
from datetime import timedelta

from flask import Response, current_app, request
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from slapos.master import http
from slapos.master.identity import links, passwords, rights, second_factor, sign_in
from slapos.master.identity.authentication import COOKIE
from slapos.master.identity.caller import serve
from slapos.master.identity.model import Person
from slapos.master.identity.rights import Action
from slapos.master.identity.secret_box import SecretBox
from slapos.master.identity.sign_in import Entered
from slapos.master.secret_file import read_secret
from slapos.protocol.errors import Conflict, SignInRefused

#: What waits for the code of a second factor.
CODE_COOKIE = "__Host-slapos-code"
#: What is answered to who is in: made of the person's reference.
Respond = Callable[[str], ResponseReturnValue]


def second_factor_box() -> SecretBox | None:
    """Return what second factors are sealed with, None where the master has no secret file."""
    path = http.assembly().settings.secret_file
    return None if path is None else SecretBox(read_secret(path), second_factor.PURPOSE)


def needed_box() -> SecretBox:
    """Return the same; raises Conflict where the master has no secret file."""
    box = second_factor_box()
    if box is None:
        raise Conflict("second factors need the setting secret_file")
    return box


def sign_in_by_password(
    email: str, password: str, code: str | None, respond: Respond, ask_code: Respond
) -> http.Elsewhere:
    """Return the answer to who may be a person, for the view to return.

    `ask_code` makes it for who has a second factor and gives no code; a cookie waits for that.
    """
    context = http.context()
    attempt = sign_in.begin(
        context.session, context.clock, email, request.remote_addr or "", user_agent()
    )
    http.concerns(attempt.about)

    def make() -> ResponseReturnValue:
        parts = http.assembly()
        if not passwords.is_right(attempt.kept, password) or attempt.kept is None:
            raise SignInRefused(sign_in.REFUSED)
        outdated = passwords.is_outdated(attempt.kept)
        better = passwords.hash_password(password) if outdated else None
        box = second_factor_box()
        return _answer(
            lambda session: sign_in.finish(
                session, parts.clock, parts.identifiers, box, attempt, better=better, code=code
            ),
            respond,
            ask_code,
        )

    return http.Elsewhere(make)


def sign_in_by_code(code: str, respond: Respond) -> http.Elsewhere:
    """Return the answer to who has shown her password before, for the view to return."""
    context, secret = http.context(), request.cookies.get(CODE_COOKIE, "")
    link = links.find(context.session, context.clock, links.LinkKind.CODE, secret)
    person = context.session.get_one(Person, link.person_id)
    attempt = sign_in.begin(
        context.session,
        context.clock,
        person.email or "",
        request.remote_addr or "",
        user_agent(),
    )
    http.concerns(attempt.about)

    def make() -> ResponseReturnValue:
        parts, box = http.assembly(), second_factor_box()
        return _answer(
            lambda session: sign_in.finish_with_code(
                session, parts.clock, parts.identifiers, box, attempt, secret=secret, code=code
            ),
            respond,
            respond,
        )

    return http.Elsewhere(make)


def _answer(
    enter: Callable[[Session], Entered], respond: Respond, ask_code: Respond
) -> ResponseReturnValue:
    def work(session: Session) -> tuple[str, Entered]:
        entered = enter(session)
        return session.get_one(Person, entered.person_id).reference, entered

    reference, entered = http.in_transaction(http.assembly(), work)
    if entered.awaits_code:
        return with_secret(ask_code(reference), CODE_COOKIE, entered.secret, links.CODE_LIFE)
    return with_cookie(respond(reference), entered.secret)


def enter_with_password(
    password: str, known: list[str], who: Callable[[Session], Person], respond: Respond
) -> http.Elsewhere:
    """Return the answer to somebody who comes in with a new password, for the view to return.

    `known` is what everybody knows of her. `who` makes her or finds her, in a transaction, and may
    be called more than once.
    """

    def make() -> ResponseReturnValue:
        parts = http.assembly()
        passwords.check(password, *known)
        kept = passwords.hash_password(password)
        address, agent = request.remote_addr or "", user_agent()

        def begin_session(session: Session) -> tuple[str, str | None]:
            person = who(session)
            sign_in.set_password(session, parts.clock, person.id, kept)
            if second_factor.is_needed(session, person.id):
                return person.reference, None  # the code is asked for when she signs in
            secret = sign_in.start(
                session, parts.clock, parts.identifiers, person.id, address, agent
            )
            return person.reference, secret

        reference, secret = http.in_transaction(parts, begin_session)
        return with_cookie(respond(reference), secret)

    return http.Elsewhere(make)


def change_password(person: Person, present: str, wanted: str, respond: Respond) -> http.Elsewhere:
    """Return the answer to who changes her password, for the view to return.

    Her other sessions end. Who has none (she signs in elsewhere) gets one.
    """
    context = http.context()
    rights.require(context.session, Action.CHANGE, person)
    person_id, reference, known = person.id, person.reference, [person.name, person.email or ""]
    attempt = sign_in.begin(
        context.session, context.clock, person.email or "", request.remote_addr or "", ""
    )
    http.concerns(attempt.about)

    def make() -> ResponseReturnValue:
        parts = http.assembly()
        if attempt.kept is not None and not passwords.is_right(attempt.kept, present):
            raise SignInRefused("the present password is another one")
        passwords.check(wanted, *known)
        kept = passwords.hash_password(wanted)

        def change(session: Session) -> None:
            serve(session, context.caller)
            sign_in.set_password(
                session, parts.clock, person_id, kept, spare=request.cookies.get(COOKIE)
            )
            sign_in.take_back(session, attempt)

        http.in_transaction(parts, change)
        return respond(reference)

    return http.Elsewhere(make)


def remove_second_factor(person: Person, code: str, respond: Respond) -> http.Elsewhere:
    """Return the answer to who wants no second factor any more, for the view to return."""
    context = http.context()
    rights.require(context.session, Action.CHANGE, person)
    person_id, reference = person.id, person.reference
    attempt = sign_in.begin(
        context.session, context.clock, person.email or "", request.remote_addr or "", ""
    )
    http.concerns(attempt.about)

    def make() -> ResponseReturnValue:
        parts, box = http.assembly(), needed_box()

        def remove(session: Session) -> None:
            serve(session, context.caller)
            if not second_factor.check(session, parts.clock, box, person_id, code):
                raise SignInRefused("the code is not the present one, or it has been used")
            second_factor.take_away(session, person_id)
            sign_in.take_back(session, attempt)

        http.in_transaction(parts, remove)
        return respond(reference)

    return http.Elsewhere(make)


def user_agent() -> str:
    """Return what the client calls itself, with nothing that no database can store."""
    return "".join(each for each in request.user_agent.string if each.isprintable())


def with_cookie(answer: ResponseReturnValue, secret: str | None) -> Response:
    """Return an answer that has the browser keep a session's secret, or forget it."""
    response = with_secret(answer, COOKIE, secret, sign_in.LIFE)
    if CODE_COOKIE in request.cookies:
        response = with_secret(response, CODE_COOKIE, None, links.CODE_LIFE)
    return response


def with_secret(
    answer: ResponseReturnValue, name: str, secret: str | None, life: timedelta
) -> Response:
    """Return an answer that has the browser keep a secret in a cookie, or forget it."""
    response = current_app.make_response(answer)
    response.set_cookie(
        name,
        secret or "",
        max_age=int(life.total_seconds()) if secret else 0,
        path="/",
        secure=True,
        httponly=True,
        samesite="Lax",
    )
    response.headers["Cache-Control"] = "no-store"
    return response
