"""What every view shares: the request's session, one transaction, and how errors are answered."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from flask import Flask, Response, current_app, g, request
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError
from werkzeug.exceptions import BadRequestKeyError, HTTPException

from slapos.master.database import WAIT_FOR_LOCK, Database, is_passing
from slapos.master.identity.caller import ANONYMOUS, LOCAL, SYSTEM, Caller, CallerKind, serve
from slapos.master.identity.subject import Subject
from slapos.master.nodes.exchange import Announcer
from slapos.master.provisioning.policy import Policy
from slapos.master.settings import Settings
from slapos.protocol.errors import (
    Conflict,
    Forbidden,
    InvalidFields,
    InvalidRequest,
    KeyReused,
    MasterFailed,
    MasterUnreachable,
    NoCapacity,
    NotFound,
    NotReady,
    PreconditionFailed,
    ProviderFailed,
    SecondFactorRequired,
    SlapOSError,
    TooManyRequests,
    Unauthorized,
    UnsupportedContent,
)
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers

View = TypeVar("View", bound=Callable[..., ResponseReturnValue])
Result = TypeVar("Result")

#: Says who asks: of a session, and the request that Flask has at hand.
Authenticate = Callable[[Session, Clock], Caller]

STATUS: dict[type[SlapOSError], int] = {
    InvalidRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    NotReady: 408,
    Conflict: 409,
    PreconditionFailed: 412,
    UnsupportedContent: 415,
    KeyReused: 422,
    TooManyRequests: 429,
    NoCapacity: 507,
    MasterFailed: 502,
    MasterUnreachable: 502,
    ProviderFailed: 502,
}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: A form or a JSON document; what a node with 1,000 partitions tells is about 1 MB.
MAXIMUM_BODY = 16 * 1024 * 1024
#: How often a transaction is begun before the client is asked to come back.
ATTEMPTS = 10
#: The wait before the second attempt, in seconds; twice that before the third, and so on.
BACK_OFF = 0.005
READS = "slapos_reads"
ENROLS = "slapos_enrols"
PUBLIC = "slapos_public"


def everybody_is_local(_session: Session, _clock: Clock) -> Caller:
    """Return the local master's user, whoever asks."""
    return LOCAL


class Busy(SlapOSError):
    """Other transactions got in the way too often."""

    code = "busy"


class DatabaseFailed(SlapOSError):
    """The database is out of reach, full, read-only or broken."""

    code = "database_failed"


@dataclass(frozen=True)
class Context:
    """What a view may use."""

    session: Session
    clock: Clock
    identifiers: Identifiers
    policy: Policy
    settings: Settings
    caller: Caller


@dataclass(frozen=True)
class Assembly:
    """What `app.py` put together: all that outlives a request."""

    database: Database
    clock: Clock
    identifiers: Identifiers
    policy: Policy
    settings: Settings
    announcer: Announcer
    authenticate: Authenticate = everybody_is_local
    #: Is told of errors that requests are answered with.
    note: Callable[["Assembly", SlapOSError], None] | None = None


class Elsewhere(Response):
    """Stands for an answer that takes the network: it is made once the transaction is over."""

    def __init__(self, make: Callable[[], ResponseReturnValue]) -> None:
        super().__init__()
        self.make = make


def context() -> Context:
    """Return this request's context."""
    found: Context = g.slapos
    return found


def assembly() -> Assembly:
    """Return this application's parts."""
    found: Assembly = current_app.extensions["slapos"]
    return found


def reads_only(view: View) -> View:
    """Mark a view that changes nothing although it is not asked by GET."""
    setattr(view, READS, True)
    return view


def keep() -> None:
    """Have what this request changed stay, although its answer is an error to those who ask.

    So for an order that is taken and waits: over SLAP it is answered with 408.
    """
    g.keep = True


def enrols(view: View) -> View:
    """Mark a view for those who have to have a second factor before anything else."""
    setattr(view, ENROLS, True)
    return view


def concerns(about: Subject | None) -> None:
    """Say what this request is about: it is written down when it is refused."""
    if about is not None:
        g.about = about


def public(view: View) -> View:
    """Mark a view that answers also those of whom nobody knows who they are."""
    setattr(view, PUBLIC, True)
    return view


def init_app(app: Flask, parts: Assembly) -> None:
    """Give each view one transaction, and errors their answers; called when all views are there."""
    app.extensions["slapos"] = parts
    app.config["MAX_CONTENT_LENGTH"] = MAXIMUM_BODY
    app.config["MAX_FORM_MEMORY_SIZE"] = MAXIMUM_BODY
    for name, view in app.view_functions.items():
        if name != "static":
            app.view_functions[name] = _in_transaction(view, parts)
    app.register_error_handler(SlapOSError, answer_error)
    app.register_error_handler(HTTPException, _answer_http_error)


def status_of(error: type[SlapOSError]) -> int:
    """Return the HTTP status of a kind of error."""
    for kind in error.__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 503 if issubclass(error, Busy | DatabaseFailed) else 500


def answer_error(error: SlapOSError) -> tuple[dict[str, Any], int]:
    """Return the answer of an error to those who speak JSON."""
    told: dict[str, Any] = {"error": error.code, "message": str(error)}
    if isinstance(error, InvalidFields):
        told["fields"] = [
            {"field": name, "message": reason} for name, reason in error.fields.items()
        ]
    return told, status_of(type(error))


def reason_of(error: HTTPException) -> str:
    """Return a sentence for an error that Flask found."""
    if isinstance(error, BadRequestKeyError):
        return f"the field {error.args[0]!r} is missing"
    return error.description or error.name


def _answer_http_error(error: HTTPException) -> ResponseReturnValue:
    if error.response is not None or error.code is None or error.code < 400:
        return error.get_response()
    code = error.name.lower().replace(" ", "_")
    return {"error": code, "message": reason_of(error)}, error.code


def in_transaction(parts: Assembly, work: Callable[[Session], Result]) -> Result:
    """Do `work` in a writing transaction of its own, outside of any view's."""

    def once() -> Result:
        with parts.database.writing() as session:
            serve(session, SYSTEM)
            result = work(session)
            session.commit()
            return result

    return until_undisturbed(parts, once)


def _in_transaction(view: Callable[..., Any], parts: Assembly) -> Callable[..., Any]:
    """Return the view with a session around it: committed if it answers below 400, else undone.

    The commit comes before the answer, so its failure is answered too. A transaction that another
    one got in the way of is done again.
    """
    reads = getattr(view, READS, False)

    @wraps(view)
    def run(**arguments: Any) -> Response:
        reading = reads or request.method in SAFE_METHODS
        try:
            answer = until_undisturbed(parts, lambda: _once(view, parts, arguments, reading))
            if isinstance(answer, Elsewhere):
                return current_app.make_response(answer.make())
        except SlapOSError as error:
            if parts.note is not None:
                parts.note(parts, error)
            raise
        return answer

    return run


def until_undisturbed(parts: Assembly, transaction: Callable[[], Result]) -> Result:
    """Do a transaction, and again when another one got in its way."""
    give_up = parts.clock.monotonic() + WAIT_FOR_LOCK
    for attempt in range(ATTEMPTS):
        if attempt:
            parts.clock.sleep(BACK_OFF * 2**attempt * (0.5 + parts.identifiers.fraction()))
        try:
            return transaction()
        except StaleDataError:
            continue
        except DataError as error:
            # PostgreSQL alone says so; what is asked stays out of the log, being anything at all.
            raise InvalidRequest(
                "something that was asked cannot be in the database: a NUL character, or a number "
                "that is too large; leave it out"
            ) from error
        except DBAPIError as error:
            if not is_passing(error) or parts.clock.monotonic() > give_up:
                current_app.logger.exception("the database failed")
                raise DatabaseFailed(
                    f"the database failed: {error.orig}; its log and the master's tell more"
                ) from error
    raise Busy("too many requests change the same things at once; try again in a moment")


def _caller(view: Callable[..., Any], parts: Assembly, session: Session) -> Caller:
    try:
        caller = parts.authenticate(session, parts.clock)
        if caller.must_enrol and not getattr(view, ENROLS, False):
            # Nothing that she has counts yet: so she is as somebody whom nobody knows.
            if getattr(view, PUBLIC, False):
                return ANONYMOUS
            raise SecondFactorRequired(
                "your roles need a second factor: have one on your account's page, or by "
                "/v1/me/second-factor"
            )
        return caller
    except Unauthorized:
        # What is open to all is open also to those whose certificate or token is no good.
        if getattr(view, PUBLIC, False):
            return ANONYMOUS
        raise


def _once(
    view: Callable[..., Any], parts: Assembly, arguments: dict[str, Any], reading: bool
) -> Response:
    database = parts.database
    with (database.reading if reading else database.writing)() as session:
        caller = _caller(view, parts, session)
        if caller.kind is CallerKind.ANONYMOUS and not getattr(view, PUBLIC, False):
            raise Unauthorized("sign in first, or show a certificate or a token")
        serve(session, caller)
        g.slapos = Context(
            session, parts.clock, parts.identifiers, parts.policy, parts.settings, caller
        )
        g.keep = False
        response = current_app.make_response(view(**arguments))
        if (response.status_code < 400 or g.keep) and not reading:
            session.commit()
        return response
