"""A web server in front that ends TLS: what it says of the client, and that nobody else may say it.

The certificate comes in `X-SSL-Client-Cert`, as nginx sends `$ssl_client_escaped_cert` (PEM,
percent-encoded) or haproxy `%[ssl_c_der,base64]` (DER, base64).
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from werkzeug.middleware.proxy_fix import ProxyFix

from slapos.master.certificates.showing import CERTIFICATE, KEPT

HEADER = "HTTP_X_SSL_CLIENT_CERT"
#: Where an application has its Front.
FRONT = "slapos.front"
FORWARDED = "HTTP_X_FORWARDED_"
FORWARDED_TOO = frozenset({"HTTP_FORWARDED", "HTTP_X_REAL_IP"})
#: Where a request has whether headers of a web server that nobody trusts were dropped.
PASSED_ON = "slapos.passed_on"
#: Stands for a certificate that cannot be read: it is refused where it is looked at.
UNREADABLE = b"unreadable"
#: Where a request has whether its headers may be believed, once that has been asked.
BELIEVED = "slapos.believed"

Network = IPv4Network | IPv6Network


class Front:
    """A WSGI application behind web servers at some addresses, and also reached directly."""

    def __init__(self, application: Any, trusted: Sequence[Network]) -> None:
        self._application = application
        self._fixed = ProxyFix(application, x_for=1, x_proto=1, x_host=1, x_prefix=1)
        self._trusted = tuple(trusted)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Take over what a trusted web server says, and drop what anybody else says."""
        if self.take_over(environ):
            fixed: Iterable[bytes] = self._fixed(environ, start_response)
            return fixed
        direct: Iterable[bytes] = self._application(environ, start_response)
        return direct

    def take_over(self, environ: dict[str, Any]) -> bool:
        """Take over the certificate, and return whether the rest may be believed, too.

        What has been taken over once is left as it is.
        """
        if BELIEVED not in environ:
            environ[BELIEVED] = self._take_over(environ)
        believed: bool = environ[BELIEVED]
        return believed

    def _take_over(self, environ: dict[str, Any]) -> bool:
        certificate = environ.pop(HEADER, None)
        if is_trusted(environ.get("REMOTE_ADDR", ""), self._trusted):
            environ.pop(CERTIFICATE, None)  # that would be the web server's own
            if certificate:
                environ[CERTIFICATE] = read_forwarded(certificate)
            return True
        said = [name for name in environ if name.startswith(FORWARDED) or name in FORWARDED_TOO]
        for name in said:
            del environ[name]
        # Not believed, but it does say that this is not who it comes from.
        environ[PASSED_ON] = bool(said)
        return False


@lru_cache(10_000)
def is_trusted(address: str, networks: tuple[Network, ...]) -> bool:
    """Return whether an address is one of those that may speak for clients."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in networks)


@lru_cache(KEPT)
def read_forwarded(text: str) -> bytes:
    """Return the certificate of a header (DER); UNREADABLE when it is none."""
    try:
        if "BEGIN" in text:
            # A header that came twice has been joined: of two, none is believed.
            (certificate,) = x509.load_pem_x509_certificates(unquote(text).encode())
            return UNREADABLE if "," in text else certificate.public_bytes(Encoding.DER)
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error, UnicodeError):
        return UNREADABLE
