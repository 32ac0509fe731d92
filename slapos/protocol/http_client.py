"""The one HTTP client: connections kept, certificates checked, idempotent calls tried again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

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
)

USER_AGENT = "slapos/0.1"
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
STATUS_ERRORS: dict[int, type[SlapOSError]] = {
    400: InvalidRequest,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    408: NotReady,
    409: Conflict,
    503: MasterFailed,
    507: NoCapacity,
}
#: The longest reason taken over from an answer into an error message.
REASON_LENGTH = 500


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """How to reach a master. `timeout` is in seconds, for the connection and between two bytes."""

    base_url: str
    timeout: float = 60.0
    retries: int = 3
    back_off: float = 0.3
    key_file: Path | None = None
    certificate_file: Path | None = None
    authority_file: Path | None = None


class HttpClient:
    """Speaks HTTP with one master. Not to be shared between threads."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._base = settings.base_url.rstrip("/") + "/"
        self._session = requests.Session()
        self._session.headers["User-Agent"] = USER_AGENT
        self._session.headers["Accept"] = "*/*"
        if settings.certificate_file and settings.key_file:
            self._session.cert = (str(settings.certificate_file), str(settings.key_file))
        retry = Retry(
            total=settings.retries,
            backoff_factor=settings.back_off,
            backoff_jitter=settings.back_off,
            allowed_methods=IDEMPOTENT,
            status_forcelist=(502, 503, 504),
            raise_on_status=False,
            respect_retry_after_header=True,
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

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
        made. Raises MasterUnreachable, or the error of the status (NotFound, NotReady, Forbidden,
        InvalidRequest, Conflict, MasterFailed) with the reason that the master gave.
        """
        url = path if "://" in path else self._base + path.lstrip("/")
        try:
            response = self._session.request(
                method,
                url,
                params=query,
                data=form,
                json=json,
                headers=headers,
                timeout=self._settings.timeout,
                # Not on the session: there REQUESTS_CA_BUNDLE of the environment would win.
                verify=str(self._settings.authority_file or "") or None,
            )
        except requests.exceptions.SSLError as error:
            raise MasterUnreachable(
                f"{self._base} could not prove who it is: {_cause(error)}; if it has its own "
                "authority, name that authority's certificate as master_ca_file"
            ) from error
        except requests.exceptions.RequestException as error:
            raise MasterUnreachable(
                f"{self._base} does not answer: {_cause(error)}; is the master running, and is "
                "master_url right?"
            ) from error
        if response.status_code >= 400:
            kind = STATUS_ERRORS.get(response.status_code, MasterFailed)
            raise kind(f"{method} {_shown(url)}: {reason_of(response)}")
        return response

    def close(self) -> None:
        """Let the connections go."""
        self._session.close()


def reason_of(response: requests.Response) -> str:
    """Return the reason in an answer: `message` or `title` of a JSON body, else its text."""
    fallback = f"{response.status_code} {response.reason}"
    kind = response.headers.get("Content-Type", "")
    if "json" in kind:
        try:
            body = response.json()
        except ValueError:
            return fallback
        if isinstance(body, dict):
            return str(body.get("message") or body.get("title") or fallback)
        return fallback
    text = response.text.strip()
    if not text or "html" in kind:
        return fallback
    return text[:REASON_LENGTH]


def _cause(error: BaseException) -> str:
    """Return the innermost reason of an error of requests, without its chain of class names."""
    text = str(error)
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if reason is not None:
        text = str(reason)
    return text.rsplit(": ", 1)[-1] if "object at 0x" in text else text


def _shown(url: str) -> str:
    return url.split("?", 1)[0]
