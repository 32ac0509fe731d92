"""`/http_proxy/<scheme>/<host:port>/<path>`: the way from a secure page to an instance's address.

It reaches only what instances of this master have published, and never follows a redirect.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import requests
import urllib3
from flask import Blueprint, Response, request, url_for
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

from slapos.master.http import Elsewhere, context
from slapos.master.identity.rights import Action, may
from slapos.master.provisioning import lookup
from slapos.protocol.errors import Forbidden, InvalidRequest

blueprint = Blueprint("http_proxy", __name__, url_prefix="/http_proxy")

TIMEOUT = 5.0  # seconds, for the connection and between two bytes
CHUNK = 64 * 1024
DEFAULT_PORTS = {"http": 80, "https": 443}
#: Authorization for pages with a password, Origin for requests of scripts from other pages.
SENT_ON = (
    "Accept",
    "Accept-Language",
    "Authorization",
    "Content-Type",
    "If-Modified-Since",
    "If-None-Match",
    "Origin",
    "Range",
    "User-Agent",
)
GIVEN_BACK = (
    "Accept-Ranges",
    "Access-Control-Allow-Credentials",
    "Access-Control-Allow-Headers",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Origin",
    "Access-Control-Expose-Headers",
    "Cache-Control",
    "Content-Range",
    "Content-Type",
    "Date",
    "ETag",
    "Last-Modified",
    "Vary",
    "WWW-Authenticate",
)
SAFE_IN_PATH = "/:@!$&'()*+,;=~"
ADDRESS = re.compile(r"https?://[^\s\"'<>]+", re.IGNORECASE)

Place = tuple[str, str, int]


class RestOfPath(BaseConverter):
    """What is left of a path, with the slash it begins with, or nothing."""

    regex = "(?:/.*)?"
    part_isolating = False

    def to_url(self, value: Any) -> str:
        """Return the path as it is in a URL."""
        return quote(str(value), safe=SAFE_IN_PATH)


@blueprint.record_once
def _add_converter(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["rest_of_path"] = RestOfPath


@blueprint.route(
    "/<scheme>/<netloc><rest_of_path:path>",
    methods=["GET", "HEAD", "OPTIONS"],
    merge_slashes=False,
    provide_automatic_options=False,
)
def fetch(scheme: str, netloc: str, path: str = "") -> Elsewhere:
    """Give what is at an address that an instance has published."""
    url = SplitResult(scheme, netloc, path or "/", request.query_string.decode(), "")
    place = place_of(url.geturl())
    if place is None or "@" in netloc:
        raise InvalidRequest(f"{scheme}://{netloc} is no address of HTTP")
    if not any(place in places_in(each) for each in _published_near(place[1])):
        raise Forbidden(
            f"no instance of this master has published {scheme}://{netloc}, and only what is "
            "published is reached from here; an instance publishes its address as a connection "
            "parameter"
        )
    return Elsewhere(lambda: _fetch(url.geturl()))


def url_through(url: str) -> str:
    """Return the address at which this proxy gives what is at `url`."""
    parts = urlsplit(url)
    through = url_for(
        "http_proxy.fetch",
        scheme=parts.scheme,
        netloc=parts.netloc,
        path=parts.path,
        _external=True,
    )
    return urlsplit(through)._replace(query=parts.query, fragment=parts.fragment).geturl()


def places_in(connection: Mapping[str, Any]) -> set[Place]:
    """Return the scheme, host and port of every address in what an instance publishes."""
    found = set()
    for value in connection.values():
        for address in ADDRESS.findall(str(value)):
            found.add(place_of(address))
            # An address that leads through an HTTP proxy such as this one names its backend.
            through = re.search(r"/http_proxy/(https?)/([^/]+)", address)
            if through:
                found.add(place_of(f"{through[1]}://{unquote(through[2])}"))
    return {place for place in found if place is not None}


def place_of(url: str) -> Place | None:
    """Return the scheme, host and port of an address, None when it is none of HTTP."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme]


def _published_near(host: str) -> Iterator[Mapping[str, Any]]:
    """Give what instances publish that names a host, as far as the caller may see it."""
    for instance in lookup.publishing(context().session, host):
        if may(context().caller, Action.SEE_VALUES, instance.subject()):
            yield instance.connection


def _fetch(url: str) -> Response:
    # Backends certify themselves, so nothing could be checked against; what is fetched is on
    # addresses that this master's own instances have named.
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy, and no password of this machine's ~/.netrc
            answer = session.request(
                request.method,
                url,
                headers={
                    "Accept-Encoding": "identity",  # what comes is passed on as it is
                    **{name: request.headers[name] for name in SENT_ON if name in request.headers},
                },
                data=request.get_data(),
                timeout=TIMEOUT,
                verify=False,
                allow_redirects=False,
                stream=True,
            )
    except requests.exceptions.SSLError as error:
        return _failed(526, url, error)
    except requests.exceptions.Timeout as error:
        return _failed(524, url, error)
    except requests.exceptions.RequestException as error:
        return _failed(523, url, error)
    # 500 would read as a failure of this master.
    status = 520 if answer.status_code == 500 else answer.status_code
    return Response(answer.iter_content(CHUNK), status, _headers(url, answer.headers))


def _failed(status: int, url: str, error: Exception) -> Response:
    text = f"{url} cannot be reached: {error}"
    return Response(text, status, content_type="text/plain; charset=utf-8")


def _headers(url: str, given: Mapping[str, str]) -> dict[str, str]:
    headers = {name: given[name] for name in GIVEN_BACK if name in given}
    headers.setdefault("Content-Type", "application/octet-stream")
    # A browser is not to show, in the name of this master, a page that somebody else wrote.
    headers["Content-Disposition"] = "attachment"
    if "Location" in given:
        headers["Location"] = url_through(urljoin(url, given["Location"]))
    return headers
