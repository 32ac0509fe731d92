"""The one HTTP client: connections kept, certificates checked, idempotent calls tried again."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import BadStatusLine
from pathlib import Path
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from slapos.protocol.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    MasterFailed,
    MasterUnreachable,
    NoCapacity,
    NotFound,
    NotReady,
    SlapOSError,
    Unauthorized,
)
from slapos.protocol.json_reader import load_json
from slapos.protocol.tls import (
    BearerToken,
    MasterAdapter,
    NotTrusted,
    Persistence,
    TlsFiles,
    explain,
)

USER_AGENT = "slapos/0.1"
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
STATUS_ERRORS: dict[int, type[SlapOSError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: NotFound,
    408: NotReady,
    409: Conflict,
    413: InvalidRequest,
    422: InvalidRequest,
    503: MasterFailed,
    507: NoCapacity,
}
#: The longest reason taken over from an answer into an error message.
REASON_LENGTH = 500
#: Bytes of the largest answer: what a node with 1,000 partitions is told is some megabytes.
LARGEST_ANSWER = 64 * 1024 * 1024
#: A whole answer may take so many times as long as the pause between two of its bytes.
PATIENCE = 5
#: How urllib3 begins its messages.
_CONNECTION = re.compile(r"^(<[^>]*>|HTTPS?Connection(Pool)?\([^)]*\)): ")
WEB_PAGE = (b"<!doctype html", b"<html")


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """How to reach a master. `timeout` is in seconds, for the connection and between two bytes.

    `token` is shown only to this master. `is_verified` is false where it is yet to be found out
    whether it is the right one: nothing secret may be sent then. `largest` is how many bytes an
    answer may have. `resolve`, if given, says at which address a host is; it raises OSError.
    """

    base_url: str
    timeout: float = 60.0
    retries: int = 3
    back_off: float = 0.3
    key_file: Path | None = None
    certificate_file: Path | None = None
    authority_file: Path | None = None
    is_verified: bool = True
    token: str = field(default="", repr=False)
    largest: int = LARGEST_ANSWER
    resolve: Callable[[str], str] | None = None

    @property
    def tls_files(self) -> TlsFiles:
        """Return the files of TLS: an instance of a master without certificates has none."""
        pair = (self.key_file, self.certificate_file)
        key, certificate = pair if all(pair) else (None, None)
        return TlsFiles(key, certificate, self.authority_file, self.is_verified)


class HttpClient:
    """Speaks HTTP with one master. Not to be shared between threads."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._base = settings.base_url.rstrip("/") + "/"
        self._session = requests.Session()
        self._session.headers["User-Agent"] = USER_AGENT
        self._session.headers["Accept"] = "*/*"
        self._tls_files = settings.tls_files
        self._token = BearerToken(settings.token) if settings.token else None
        retry = Persistence(
            total=settings.retries,
            # Once, for a connection that the master closed meanwhile. One that says nothing has
            # already taken the whole timeout.
            read=min(settings.retries, 1),
            backoff_factor=settings.back_off,
            backoff_jitter=settings.back_off,
            allowed_methods=IDEMPOTENT,
            status_forcelist=(502, 503, 504),
            raise_on_status=False,
            respect_retry_after_header=True,
        )
        for scheme in ("http://", "https://"):
            adapter = MasterAdapter(self._tls_files, retry, settings.resolve)
            self._session.mount(scheme, adapter)

    @property
    def base_url(self) -> str:
        """Where the master is, with a slash at the end."""
        return self._base

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Ask, and return the answer when its status is below 400.

        GET, HEAD, PUT and DELETE are tried again with back-off; POST only when no connection was
        made. Raises MasterUnreachable, also when an answer does not come to its end in time;
        MasterFailed when it is too large or a web page; or the error of the status (NotFound,
        NotReady, Unauthorized, Forbidden, InvalidRequest, Conflict, MasterFailed) with the master's
        reason. NotTrusted, a MasterUnreachable, is raised when TLS does not come about.
        """
        url = path if "://" in path else self._base + path.lstrip("/")
        try:
            response = self._session.request(
                method,
                url,
                params=query,
                data=_sendable(form),
                json=json,
                headers=headers,
                timeout=self._settings.timeout,
                auth=self._token if url.startswith(self._base) else None,
                stream=True,
            )
            self._take_in(response)
        except (requests.exceptions.RequestException, HTTPError) as error:
            raise self._no_answer(error) from error
        if response.status_code >= 400:
            kind = STATUS_ERRORS.get(response.status_code, MasterFailed)
            raise kind(f"{method} {_shown(url)}: {reason_of(response)}")
        if response.content[:100].lstrip().lower().startswith(WEB_PAGE):
            raise MasterFailed(
                f"{method} {_shown(url)}: the answer makes no sense, it is a web page; is "
                "master_url right, and does a proxy or a portal stand in between?"
            )
        return response

    def _no_answer(self, error: Exception) -> MasterUnreachable:
        cause = cause_of(error)
        distrust = explain(self._base, self._tls_files, cause)
        if distrust is not None:
            return NotTrusted(distrust)
        return MasterUnreachable(
            f"{self._base} does not answer: {cause}; is the master running, and is master_url "
            "right?"
        )

    def _take_in(self, response: requests.Response) -> None:
        """Read the body, unless it is endless or trickles for ever."""
        deadline = time.monotonic() + PATIENCE * self._settings.timeout
        body = bytearray()
        while data := response.raw.read1(65536, decode_content=True):
            body += data
            if len(body) > self._settings.largest:
                response.raw.close()
                raise MasterFailed(
                    f"{self._base}: the answer makes no sense, it has more than "
                    f"{self._settings.largest >> 20} MiB"
                )
            if time.monotonic() > deadline:
                response.raw.close()
                raise MasterUnreachable(
                    f"{self._base} answers too slowly: {len(body)} bytes in "
                    f"{PATIENCE * self._settings.timeout:g} s; is the network all right?"
                )
        response.raw.release_conn()
        response._content = bytes(body)  # where requests itself keeps what it has read

    def close(self) -> None:
        """Let the connections go."""
        self._session.close()


def reason_of(response: requests.Response) -> str:
    """Return the reason in an answer: `message` or `title` of a JSON body, else its text."""
    fallback = f"{response.status_code} {response.reason}"
    kind = response.headers.get("Content-Type", "")
    if "json" in kind:
        try:
            body = load_json(response.content)
        except ValueError:
            return fallback
        if isinstance(body, dict):
            return str(body.get("message") or body.get("title") or fallback)
        return fallback
    text = response.text.strip()
    if not text or "html" in kind:
        return fallback
    return text[:REASON_LENGTH]


def _sendable(form: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return a form whose texts can be encoded: messages repeat names of files, odd ones too."""
    if form is None:
        return None
    return {name: text.encode(errors="backslashreplace").decode() for name, text in form.items()}


def cause_of(error: BaseException) -> str:
    """Return the innermost reason of an error of requests, without its chain of class names."""
    while inner := _within(error):
        error = inner
    if type(error) is BadStatusLine:
        return f"it does not speak HTTP, but says {str(error)[:100]!r}"
    return _CONNECTION.sub("", str(error))


def _within(error: BaseException) -> BaseException | None:
    wrapped = [*error.args, getattr(error, "reason", None)]
    return next((each for each in reversed(wrapped) if isinstance(each, BaseException)), None)


def _shown(url: str) -> str:
    return url.split("?", 1)[0]
