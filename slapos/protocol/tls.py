"""TLS with a master: whom we trust, what we show, and what to say when that does not go well.

The files are looked at with each request: a certificate that was renewed, or an authority that was
added, counts from the next request on, without a restart.
"""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.exceptions import SSLError
from urllib3.util.retry import Retry

from slapos.protocol.errors import InvalidConfiguration, MasterUnreachable

#: What a side is told by OpenSSL when the other one does not take its certificate.
_REFUSALS = (
    "CERTIFICATE_REQUIRED",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN",
    "BAD_CERTIFICATE",
    "UNKNOWN_CA",
    "DECRYPT_ERROR",
)
_OUT_OF_TIME = ("certificate has expired", "certificate is not yet valid")

#: When a file was last changed, and which file it was: inode, nanoseconds, bytes.
Stamp = tuple[int, int, int] | None


class NotTrusted(MasterUnreachable):
    """One side does not believe the other: the master's certificate, or ours, does not count."""

    code = "not_trusted"


@dataclass(frozen=True)
class TlsFiles:
    """The PEM files of TLS: our key and certificate, and the authorities that we trust.

    Without `authority`, those that the system trusts. `is_verified` is false where it is yet to be
    found out whom to trust: no secret may be sent then.
    """

    key: Path | None = None
    certificate: Path | None = None
    authority: Path | None = None
    is_verified: bool = True

    def stamps(self) -> tuple[Stamp, ...]:
        """Return what changes when a file does."""
        return tuple(_stamp(path) for path in (self.key, self.certificate, self.authority))

    def context(self, bundle: str | None = None) -> ssl.SSLContext:
        """Return what a connection is made with; `bundle` is what is trusted without `authority`.

        Raises InvalidConfiguration when a file cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.is_verified:
            self._trust(context, bundle)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.key is not None and self.certificate is not None:
            try:
                _load(context, self.certificate, self.key)
            except OSError as error:
                raise InvalidConfiguration(
                    f"the certificate {self.certificate} and the key {self.key} cannot be used: "
                    f"{error.strerror or error}"
                ) from error
        return context

    def _trust(self, context: ssl.SSLContext, bundle: str | None) -> None:
        trusted = self.authority or bundle
        if trusted is None:
            if _has_system_store():
                context.load_default_certs()
            else:
                context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
            return
        try:
            if os.path.isdir(trusted):
                context.load_verify_locations(capath=trusted)
            else:
                context.load_verify_locations(cafile=trusted)
        except OSError as error:
            raise InvalidConfiguration(
                f"the authority's certificate {trusted} cannot be used: {error.strerror or error}"
            ) from error


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Load a pair: when it was exchanged between the two reads, once more."""
    for is_last in (False, False, True):
        try:
            # An empty password, so that nobody is asked for one.
            context.load_cert_chain(certificate, key, lambda: "")
            return
        except OSError:
            if is_last:
                raise


class MasterAdapter(HTTPAdapter):
    """Makes the connections of requests: with contexts of ours, made anew when a file changes.

    `resolve` says at which address a host is; without it, the system does.
    """

    def __init__(
        self, files: TlsFiles, retry: Retry, resolve: Callable[[str], str] | None = None
    ) -> None:
        self._files = files
        self._resolve = resolve
        self._contexts: dict[str | None, ssl.SSLContext] = {}
        self._stamps = files.stamps()
        super().__init__(max_retries=retry)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """Return what tells connections that may stand for each other."""
        host, found = super().build_connection_pool_key_attributes(request, verify, None)
        pool: dict[str, Any] = {**found}
        if host["scheme"] == "https":
            context = self._context(verify if isinstance(verify, str) else None)
            pool = {
                "ssl_context": context,
                "cert_reqs": "CERT_REQUIRED" if self._files.is_verified else "CERT_NONE",
            }
        if self._resolve is not None:
            # What was looked at is what is connected to, whatever the name means a moment later.
            name = host["host"].strip("[]")
            try:
                host["host"] = self._resolve(name)
            except OSError as error:
                raise requests.exceptions.ConnectionError(str(error)) from error
            if host["scheme"] == "https":
                pool["server_hostname"] = name
        return host, pool

    def add_headers(self, request: requests.PreparedRequest, **named: Any) -> None:
        """Say which host is meant, where the connection goes by its address."""
        if self._resolve is not None:
            request.headers["Host"] = urlsplit(str(request.url)).netloc.rpartition("@")[2]

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave it to the context."""

    def _context(self, bundle: str | None) -> ssl.SSLContext:
        stamps = self._files.stamps()
        if stamps != self._stamps:
            self._stamps = stamps
            self._contexts.clear()
            self.poolmanager.clear()
        if bundle not in self._contexts:
            self._contexts[bundle] = self._files.context(bundle)
        return self._contexts[bundle]


class Persistence(Retry):
    """What is tried again: no certificate that does not count; it will not the next time.

    And no order whose TLS connection broke: it may have arrived.
    """

    def increment(
        self, method: str | None = None, url: str | None = None, *rest: Any, **named: Any
    ) -> "Persistence":
        """Return what is left to try after an error, or raise it."""
        error = named.get("error")
        if isinstance(error, SSLError):
            cause = error.args[0] if error.args else None
            is_question = method in (self.allowed_methods or ())
            if isinstance(cause, ssl.SSLCertVerificationError) or not is_question:
                raise error
        return super().increment(method, url, *rest, **named)


class BearerToken(requests.auth.AuthBase):
    """Shows a token, where nothing else says who asks."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put it into a request."""
        request.headers.setdefault("Authorization", f"Bearer {self._token}")
        return request


def explain(base_url: str, files: TlsFiles, cause: str) -> str | None:
    """Return what to say of TLS that failed by `cause`; None when it is not the reason."""
    upper = cause.upper().replace(" ", "_")
    if "ALERT" in upper and any(refusal in upper for refusal in _REFUSALS):
        if files.certificate is None:
            return f"{base_url} wants a certificate from whoever asks: name key_file and cert_file"
        return (
            f"{base_url} does not take our certificate {files.certificate}: {cause}; was it "
            "revoked, has it expired, or is it of another master?"
        )
    if "EOF_OCCURRED" in upper and files.certificate is not None:
        return (
            f"{base_url} ends the TLS connection: {cause}; perhaps it does not take our "
            f"certificate {files.certificate}"
        )
    if "WRONG_VERSION_NUMBER" in upper or "RECORD_LAYER_FAILURE" in upper:
        return f"{base_url} does not speak TLS: is it http:// instead of https://?"
    if "CERTIFICATE_VERIFY_FAILED" in upper and any(text in cause for text in _OUT_OF_TIME):
        return (
            f"{base_url} could not prove who it is: {cause}; is the clock of this machine right? "
            "If it is, the master's operator has to renew the master's certificate"
        )
    if "CERTIFICATE_VERIFY_FAILED" in upper and "is not valid for" in cause:
        return (
            f"{base_url} could not prove who it is: {cause}; use a name in master_url that the "
            "master's certificate is made for"
        )
    if "CERTIFICATE_VERIFY_FAILED" in upper:
        return (
            f"{base_url} could not prove who it is: {cause}; if it has its own "
            "authority, name that authority's certificate as master_ca_file"
        )
    return None


def _stamp(path: Path | None) -> Stamp:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _has_system_store(find: Callable[[], Any] = ssl.get_default_verify_paths) -> bool:
    """Whether the system has certificates to trust; a small container has none."""
    paths = find()
    if paths.cafile is not None:
        return True
    try:
        return bool(paths.capath) and bool(os.listdir(paths.capath))
    except OSError:
        return False
