"""Who asks, by what the request shows: a certificate, a token, a session."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from flask import Response, after_this_request, current_app, request
from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from slapos.master.http import SAFE_METHODS, assembly
from slapos.master.identity.caller import ANONYMOUS, SYSTEM, Caller, CallerKind, Role, serve
from slapos.master.identity.credentials import PersonalToken, SecondFactor, SignIn
from slapos.master.identity.model import Membership, Person, PersonState, Project, ProjectState
from slapos.master.identity.one_way import hash_of
from slapos.master.identity.subject import Kind, Subject
from slapos.protocol.errors import CrossSite, Unauthorized
from slapos.system.clock import Clock

#: The prefix has a browser send it only over TLS, and only to the very host that set it.
COOKIE = "__Host-slapos"
TOKEN_PREFIX = "slapos_"
#: A session that nobody has used for so long is over.
IDLE = timedelta(hours=8)
#: How old the written time of the last use may be: it costs a transaction.
TOKEN_USE_KEPT = timedelta(hours=1)
SESSION_USE_KEPT = timedelta(minutes=5)

_PERSON = (
    Person.id,
    Person.reference,
    Person.state,
    Membership.project_id,
    Membership.role,
    Project.state,
    Project.needs_second_factor,
    SecondFactor.confirmed_at,
)
_TOKEN = (PersonalToken.id, PersonalToken.scopes, PersonalToken.expires_at, PersonalToken.used_at)
_SIGN_IN = (SignIn.id, SignIn.expires_at, SignIn.used_at)
#: Each has a row for every membership of the person, one if she has none.
_BY_TOKEN = (
    select(*_TOKEN, *_PERSON)
    .select_from(PersonalToken)
    .join(Person, Person.id == PersonalToken.person_id)
    .outerjoin(Membership, Membership.person_id == Person.id)
    .outerjoin(Project, Project.id == Membership.project_id)
    .outerjoin(SecondFactor, SecondFactor.person_id == Person.id)
    .where(PersonalToken.hash == bindparam("hash"))
)
_BY_SIGN_IN = (
    select(*_SIGN_IN, *_PERSON)
    .select_from(SignIn)
    .join(Person, Person.id == SignIn.person_id)
    .outerjoin(Membership, Membership.person_id == Person.id)
    .outerjoin(Project, Project.id == Membership.project_id)
    .outerjoin(SecondFactor, SecondFactor.person_id == Person.id)
    .where(SignIn.hash == bindparam("hash"))
)
_BY_ID = (
    select(*_PERSON)
    .select_from(Person)
    .outerjoin(Membership, Membership.person_id == Person.id)
    .outerjoin(Project, Project.id == Membership.project_id)
    .outerjoin(SecondFactor, SecondFactor.person_id == Person.id)
    .where(Person.id == bindparam("id"))
)


class TokenRefused(Unauthorized):
    """A personal token does not count; `about` is whose it is, when somebody's."""

    def __init__(self, message: str, about: Subject | None = None) -> None:
        super().__init__(message)
        self.about = about


def by_token(session: Session, clock: Clock) -> Caller | None:
    """Say who asks by a personal token."""
    shown = _shown_token()
    if shown is None:
        return None
    rows = session.execute(_BY_TOKEN, {"hash": hash_of(shown)}).all()
    if not rows or rows[0].expires_at <= clock.now():
        raise TokenRefused(
            "the token is unknown or revoked, or it has expired; make another one",
            _whose(rows[0]) if rows else None,
        )
    token = rows[0]
    caller = _person((row[len(_TOKEN) :] for row in rows), frozenset(token.scopes.split()))
    if caller is None:
        raise TokenRefused(
            "whose token it is has been suspended; ask an administrator", _whose(token)
        )
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
    return _person((row[len(_SIGN_IN) :] for row in rows), None)


#: Each says who asks, None when the request shows nothing of its kind, and raises Unauthorized
#: when what it shows does not count. The first that knows is believed.
METHODS: tuple[Callable[[Session, Clock], Caller | None], ...] = (by_token, by_session)


def authenticate(session: Session, clock: Clock) -> Caller:
    """Return who asks; raise Unauthorized when what the request shows does not count."""
    check_origin()
    for method in METHODS:
        caller = method(session, clock)
        if caller is not None:
            return caller
    return ANONYMOUS


def check_origin() -> None:
    """Raise CrossSite when a page of another site has the browser change something.

    Browsers say where a request comes from (Fetch Metadata; older ones by Origin); programs say
    nothing, and no browser has them send its cookies.
    """
    if request.method in SAFE_METHODS:
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        is_own = site in ("same-origin", "none")
    else:
        is_own = origin is None or origin.partition("://")[2] == request.host
    if not is_own:
        raise CrossSite("a page of another site asked for this; begin at the master's own pages")


def caller_of_person(session: Session, person_id: int) -> Caller | None:
    """Return the caller that a person is, None when she is suspended."""
    return _person(session.execute(_BY_ID, {"id": person_id}), None)


def _whose(token: Any) -> Subject:
    person_id, reference, *_ = token[len(_TOKEN) :]
    return Subject(Kind.TOKEN, f"token of {reference}", owner_id=person_id)


def _shown_token() -> str | None:
    header = request.headers.get("X-Access-Token")
    if header is not None:
        return header.strip()
    method, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if method.lower() == "bearer" else None


def _person(rows: Iterable[Any], scopes: frozenset[str] | None) -> Caller | None:
    """Return the caller of rows with the columns `_PERSON`."""
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
        must_enrol=found[0][7] is None and _is_factor_needed(found),
    )


def _is_factor_needed(rows: Iterable[tuple[Any, ...]]) -> bool:
    """Return whether a role of somebody, or a project that it is in, needs a second factor."""
    roles = assembly().settings.second_factor_roles
    return any(row[6] or row[4] in roles for row in rows)


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
