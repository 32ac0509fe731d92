"""What is done around every request that reaches the web framework."""

import hmac
import ipaddress
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, g, request
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from slapos.master.certificates.front import PASSED_ON
from slapos.master.http import Assembly, Authenticate
from slapos.master.identity.caller import Caller, CallerKind
from slapos.master.settings import Profile, Settings
from slapos.master.traffic.limits import Buckets, neighbourhood, share_of
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
#: Where a WSGI environ has the id that a client has sent.
HEADER_KEY = "HTTP_" + HEADER.upper().replace("-", "_")
PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"

access = logging.getLogger(ACCESS)


@dataclass(frozen=True)
class Limits:
    """How often callers may ask that are known, and addresses from which nobody known comes."""

    known: Buckets
    unknown: Buckets

    def take(self, caller: Caller) -> None:
        """Count a request of a caller that is known; raises TooManyRequests."""
        self.known.take(f"{caller.kind} {caller.name}")


def limits_of(settings: Settings, clock: Clock) -> Limits | None:
    """Return the limits that the settings say, None without any."""
    if settings.rate_limit is None and settings.anonymous_rate_limit is None:
        return None
    return Limits(
        Buckets(share_of(settings.rate_limit, settings.workers), clock),
        Buckets(share_of(settings.anonymous_rate_limit, settings.workers), clock),
    )


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
        limits.take(caller)
    return caller


def surrounded(authenticate: Authenticate, limits: Limits | None) -> Authenticate:
    """Return how to find out who asks, within limits, such that the session knows its request."""
    if limits is not None:
        authenticate = limited(authenticate, limits)

    def ask(session: Session, clock: Clock) -> Caller:
        if "request_id" in g:
            remember(session, g.request_id)
        caller = authenticate(session, clock)
        g.caller = caller
        return caller

    return ask


class Beside:
    """Does for an answer in the full profile what is done for those of the web framework."""

    def __init__(
        self, clock: Clock, give_id: Callable[[str | None], str], metrics: Metrics
    ) -> None:
        self._clock, self._give_id, self._metrics = clock, give_id, metrics

    def end(
        self, environ: Mapping[str, Any], caller: Caller, operation: str, began: float, status: int
    ) -> list[tuple[str, str]]:
        """Count and log a request; return the headers that its answer has beside its own.

        `began` is when, by the clock's `monotonic`.
        """
        seconds = self._clock.monotonic() - began
        request_id = self._give_id(environ.get(HEADER_KEY))
        self._metrics.answered(operation, environ["REQUEST_METHOD"], status, seconds)
        told = _Told(
            method=environ["REQUEST_METHOD"],
            path=environ["PATH_INFO"],
            status=status,
            request_id=request_id,
            operation=operation,
            seconds=seconds,
            caller=caller,
            address=environ.get("REMOTE_ADDR"),
        )
        _log(told)
        headers = [(HEADER, request_id), *HEADERS.items()]
        if environ["wsgi.url_scheme"] == "https":
            headers.append(("Strict-Transport-Security", TRANSPORT_SECURITY))
        return headers


def init_app(app: Flask, parts: Assembly, metrics: Metrics) -> Beside:
    """Have all of it done; called after `http.init_app`, as /metrics takes no transaction.

    Return how the same is done for what is answered before the web framework sees it.
    """
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
            told = _Told(
                method=request.method,
                path=request.path,
                status=response.status_code,
                request_id=g.request_id,
                operation=operation,
                seconds=seconds,
                caller=g.get("caller"),
                address=request.remote_addr,
            )
            _log(told)
        return response

    def show_metrics() -> ResponseReturnValue:
        _check_may_measure(token, is_proxied=bool(settings.trusted_proxies))
        return Response(metrics.text(measured), content_type=PROMETHEUS_TEXT)

    app.before_request(begin)
    app.after_request(end)
    app.add_url_rule("/metrics", "metrics", show_metrics)
    return Beside(clock, give_id, metrics)


def _method(method: str) -> str:
    """Return a method that there is: a label must not take whatever clients think of."""
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return method if method in known else "other"


def _protect(response: Response) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", TRANSPORT_SECURITY)


@dataclass(frozen=True)
class _Told:
    """What the log tells of a request."""

    method: str
    path: str
    status: int
    request_id: str
    operation: str
    seconds: float
    caller: Caller | None
    address: str | None


def _log(told: _Told) -> None:
    # Without what comes after the question mark, where somebody may have put a secret.
    say(
        access,
        f"{told.method} {told.path} {told.status}",
        request_id=told.request_id,
        operation=told.operation,
        status=told.status,
        milliseconds=round(told.seconds * 1000, 1),
        caller=told.caller.name if told.caller is not None else "unknown",
        address=told.address,
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
