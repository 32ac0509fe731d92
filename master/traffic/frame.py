"""What is done around every request that reaches the web framework."""

import hmac
import ipaddress
import logging
from dataclasses import dataclass

from flask import Flask, Response, g, request
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from slapos.master.certificates.front import PASSED_ON
from slapos.master.http import Assembly, Authenticate
from slapos.master.identity.caller import Caller, CallerKind
from slapos.master.settings import Profile, Settings
from slapos.master.traffic.limits import UNLIMITED, Buckets, neighbourhood
from slapos.master.traffic.logs import ACCESS, say
from slapos.master.traffic.measured import Measured
from slapos.master.traffic.metrics import METRICS, Metrics
from slapos.master.traffic.request_id import HEADER, remember, request_ids
from slapos.protocol.errors import TooManyRequests, Unauthorized
from slapos.system.clock import Clock

#: Headers by which a web server in front says that it passes a request on.
FORWARDED = (
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Prefix",
    "X-Real-Ip",
    "Via",
)
#: Of answers that say nothing else: nothing of them is to be run or shown inside of others.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
#: Two years: for all this time, clients that know it come by TLS only.
TRANSPORT_SECURITY = "max-age=63072000"
PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"

access = logging.getLogger(ACCESS)


@dataclass(frozen=True)
class Limits:
    """How often callers may ask that are known, and addresses from which nobody known comes."""

    known: Buckets
    unknown: Buckets


def limited(authenticate: Authenticate, limits: Limits) -> Authenticate:
    """Return how to find out who asks, and whether it has not asked too often.

    An address counts only where nobody knows who asks, so that those behind a common one do not
    hinder each other: to find out takes one look by an index, and what is shown cannot be guessed.
    """

    def ask(session: Session, clock: Clock) -> Caller:
        address = neighbourhood(request.remote_addr or "")
        if "caller" in g:  # the transaction is repeated
            return authenticate(session, clock)
        try:
            return _admitted(limits, address, authenticate, session, clock)
        except TooManyRequests as error:
            g.pause = error.seconds
            raise

    return ask


def _admitted(
    limits: Limits, address: str, authenticate: Authenticate, session: Session, clock: Clock
) -> Caller:
    try:
        caller = authenticate(session, clock)
    except Unauthorized:
        limits.unknown.take(address)
        raise
    if caller.kind is CallerKind.ANONYMOUS:
        limits.unknown.take(address)
    else:
        limits.known.take(f"{caller.kind} {caller.name}")
    return caller


def surrounded(authenticate: Authenticate, settings: Settings, clock: Clock) -> Authenticate:
    """Return how to find out who asks, within limits, such that the session knows its request."""
    if settings.rate_limit is not None or settings.anonymous_rate_limit is not None:
        known = Buckets(settings.rate_limit or UNLIMITED, clock)
        unknown = Buckets(settings.anonymous_rate_limit or UNLIMITED, clock)
        authenticate = limited(authenticate, Limits(known, unknown))

    def ask(session: Session, clock: Clock) -> Caller:
        if "request_id" in g:
            remember(session, g.request_id)
        caller = authenticate(session, clock)
        g.caller = caller
        return caller

    return ask


def init_app(app: Flask, parts: Assembly, metrics: Metrics) -> None:
    """Have all of it done; called after `http.init_app`, as /metrics takes no transaction."""
    give_id = request_ids(parts.identifiers)
    clock, settings = parts.clock, parts.settings
    is_full = settings.profile is Profile.FULL
    token = settings.metrics_token_file.read_text().strip() if settings.metrics_token_file else ""
    app.extensions[METRICS] = metrics
    metrics.watch(parts.database.engine)
    measured = Measured(parts.database.looking)

    def begin() -> None:
        g.request_id = give_id(request.headers.get(HEADER))
        g.began = clock.monotonic()

    def end(response: Response) -> Response:
        seconds = clock.monotonic() - g.began
        operation = request.endpoint or "none"
        metrics.answered(operation, _method(request.method), response.status_code, seconds)
        response.headers[HEADER] = g.request_id
        if "pause" in g:
            response.headers["Retry-After"] = str(g.pause)
        if is_full:
            _protect(response)
            _log(response, operation, seconds)
        return response

    def show_metrics() -> ResponseReturnValue:
        _check_may_measure(token, is_proxied=bool(settings.trusted_proxies))
        return Response(metrics.text(measured), content_type=PROMETHEUS_TEXT)

    app.before_request(begin)
    app.after_request(end)
    app.add_url_rule("/metrics", "metrics", show_metrics)


def _method(method: str) -> str:
    """Return a method that there is: a label must not take whatever clients think of."""
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return method if method in known else "other"


def _protect(response: Response) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", TRANSPORT_SECURITY)


def _log(response: Response, operation: str, seconds: float) -> None:
    caller: Caller | None = g.get("caller")
    # Without what comes after the question mark, where somebody may have put a secret.
    say(
        access,
        f"{request.method} {request.path} {response.status_code}",
        request_id=g.request_id,
        operation=operation,
        status=response.status_code,
        milliseconds=round(seconds * 1000, 1),
        caller=caller.name if caller is not None else "unknown",
        address=request.remote_addr,
    )


def _check_may_measure(token: str, *, is_proxied: bool) -> None:
    """Raise Unauthorized unless the request shows the token, or comes from this very machine.

    Where there is a token, nothing else counts. What a web server in front passes on comes from
    this machine too, perhaps: so nothing that says that it was passed on counts without a token.
    """
    if token:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        allowed = hmac.compare_digest(shown.encode(), token.encode())
    else:
        passed_on = (
            is_proxied
            or request.environ.get(PASSED_ON)
            or any(name in request.headers for name in FORWARDED)
        )
        allowed = _is_loopback(request.remote_addr) and not passed_on
    if not allowed:
        raise Unauthorized("metrics are shown to who has the metrics token, or on this machine")


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False
