"""Who asks, by what the request shows: a certificate, a token, a session."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from flask import Response, after_this_request, current_app, request
from sqlalchemy import Select, bindparam, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from slapos.master.http import assembly
from slapos.master.identity.caller import ANONYMOUS, SYSTEM, Caller, CallerKind, Role, serve
from slapos.master.identity.credentials import PersonalToken, SignIn
from slapos.master.identity.model import Membership, Person, PersonState, Project, ProjectState
from slapos.master.identity.one_way import hash_of
from slapos.protocol.errors import Unauthorized
from slapos.system.clock import Clock

#: The prefix has a browser send it only over TLS, and only to the very host that set it.
COOKIE = "__Host-slapos"
TOKEN_PREFIX = "slapos_"
#: A session that nobody has used for so long is over.
IDLE = timedelta(hours=8)
#: How old the written time of the last use may be: it costs a transaction.
TOKEN_USE_KEPT = timedelta(hours=1)
SESSION_USE_KEPT = timedelta(minutes=5)

_MEMBERSHIP = (
    Person.id,
    Person.reference,
    Person.state,
    Membership.project_id,
    Membership.role,
    Project.state,
)


def _with_person(statement: Select[Any], person_id: Any) -> Select[Any]:
    """Return a SELECT with a row for each of a person's memberships, one if she has none."""
    return (
        statement.add_columns(*_MEMBERSHIP)
        .join(Person, Person.id == person_id)
        .outerjoin(Membership, Membership.person_id == Person.id)
        .outerjoin(Project, Project.id == Membership.project_id)
    )


_BY_TOKEN = _with_person(
    select(
        PersonalToken.id, PersonalToken.scopes, PersonalToken.expires_at, PersonalToken.used_at
    ).where(PersonalToken.hash == bindparam("hash")),
    PersonalToken.person_id,
)
_BY_SIGN_IN = _with_person(
    select(SignIn.id, SignIn.expires_at, SignIn.used_at).where(SignIn.hash == bindparam("hash")),
    SignIn.person_id,
)
_BY_ID = _with_person(
    select(Person.id.label("own")).where(Person.id == bindparam("id")), bindparam("id")
)


def by_token(session: Session, clock: Clock) -> Caller | None:
    """Say who asks by a personal token."""
    shown = _shown_token()
    if shown is None:
        return None
    rows = session.execute(_BY_TOKEN, {"hash": hash_of(shown)}).all()
    if not rows or rows[0].expires_at <= clock.now():
        raise Unauthorized("the token is unknown or revoked, or it has expired; make another one")
    token = rows[0]
    caller = _person([row[4:] for row in rows], frozenset(token.scopes.split()))
    if caller is None:
        raise Unauthorized("whose token it is has been suspended; ask an administrator")
    if token.used_at is None or clock.now() - token.used_at > TOKEN_USE_KEPT:
        _note_use(PersonalToken, token.id, clock.now())
    return caller


def by_session(session: Session, clock: Clock) -> Caller | None:
    """Say who asks by the cookie of a session; one that is over shows nobody."""
    cookie = request.cookies.get(COOKIE)
    if not cookie:
        return None
    rows = session.execute(_BY_SIGN_IN, {"hash": hash_of(cookie)}).all()
    now = clock.now()
    if not rows or rows[0].expires_at <= now or now - rows[0].used_at > IDLE:
        return None
    if now - rows[0].used_at > SESSION_USE_KEPT:
        _note_use(SignIn, rows[0].id, now)
    return _person([row[3:] for row in rows], None)


#: Each says who asks, None when the request shows nothing of its kind, and raises Unauthorized
#: when what it shows does not count. The first that knows is believed.
METHODS: tuple[Callable[[Session, Clock], Caller | None], ...] = (by_token, by_session)


def authenticate(session: Session, clock: Clock) -> Caller:
    """Return who asks; raise Unauthorized when what the request shows does not count."""
    for method in METHODS:
        caller = method(session, clock)
        if caller is not None:
            return caller
    return ANONYMOUS


def caller_of_person(session: Session, person_id: int) -> Caller | None:
    """Return the caller that a person is, None when she is suspended."""
    return _person([row[1:] for row in session.execute(_BY_ID, {"id": person_id})], None)


def _shown_token() -> str | None:
    header = request.headers.get("X-Access-Token")
    if header is not None:
        return header.strip()
    method, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if method.lower() == "bearer" else None


def _person(rows: Iterable[Any], scopes: frozenset[str] | None) -> Caller | None:
    """Return the caller of rows with the columns `_MEMBERSHIP`."""
    found = [tuple(row) for row in rows]
    if not found or found[0][2] != PersonState.ACTIVE:
        return None
    person_id, reference, _state, *_ = found[0]
    return Caller(
        kind=CallerKind.PERSON,
        name=reference,
        id=person_id,
        memberships=frozenset((row[3], Role(row[4])) for row in found if row[4] is not None),
        scopes=scopes,
        closed_projects=frozenset(
            row[3] for row in found if row[5] not in (None, ProjectState.ACTIVE)
        ),
    )


def _note_use(kind: type[PersonalToken] | type[SignIn], number: int, now: datetime) -> None:
    """Write, once the answer is made, when something was used; without it, the request is fine."""

    @after_this_request
    def note(response: Response) -> Response:
        parts = assembly()
        try:
            with parts.database.writing.begin() as session:
                serve(session, SYSTEM)
                session.execute(update(kind).where(kind.id == number).values(used_at=now))
        except SQLAlchemyError:
            current_app.logger.warning("when a token was used could not be written", exc_info=True)
        return response
