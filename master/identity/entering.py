"""How a person gets in over HTTP, for the views of `/v1` and for the pages alike.

A password is hashed when the view's transaction is over; what follows is another one.
"""

from collections.abc import Callable

from flask import Response, current_app, request
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from slapos.master import http
from slapos.master.identity import passwords, rights, sign_in
from slapos.master.identity.authentication import COOKIE
from slapos.master.identity.caller import serve
from slapos.master.identity.model import Person
from slapos.master.identity.rights import Action
from slapos.protocol.errors import SignInRefused

#: What is answered to who is in: made of the person's reference.
Respond = Callable[[str], ResponseReturnValue]


def sign_in_by_password(email: str, password: str, respond: Respond) -> http.Elsewhere:
    """Return the answer to who may be a person, for the view to return."""
    context = http.context()
    attempt = sign_in.begin(
        context.session, context.clock, email, request.remote_addr or "", user_agent()
    )

    def make() -> ResponseReturnValue:
        parts = http.assembly()
        if not passwords.is_right(attempt.kept, password) or attempt.kept is None:
            raise SignInRefused(sign_in.REFUSED)
        outdated = passwords.is_outdated(attempt.kept)
        better = passwords.hash_password(password) if outdated else None

        def begin_session(session: Session) -> tuple[str, str]:
            secret = sign_in.finish(session, parts.clock, parts.identifiers, attempt, better)
            return session.get_one(Person, attempt.person_id).reference, secret

        reference, secret = http.in_transaction(parts, begin_session)
        return with_cookie(respond(reference), secret)

    return http.Elsewhere(make)


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

        def begin_session(session: Session) -> tuple[str, str]:
            person = who(session)
            sign_in.set_password(session, parts.clock, person.id, kept)
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


def user_agent() -> str:
    """Return what the client calls itself, with nothing that no database can store."""
    return "".join(each for each in request.user_agent.string if each.isprintable())


def with_cookie(answer: ResponseReturnValue, secret: str | None) -> Response:
    """Return an answer that has the browser keep a session's secret, or forget it."""
    response = current_app.make_response(answer)
    response.set_cookie(
        COOKIE,
        secret or "",
        max_age=int(sign_in.LIFE.total_seconds()) if secret else 0,
        path="/",
        secure=True,
        httponly=True,
        samesite="Lax",
    )
    response.headers["Cache-Control"] = "no-store"
    return response
