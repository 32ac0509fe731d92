"""Sending to an address that somebody has given us: only to where it is allowed.

The name is resolved once; the address that is found is checked, and is the one that is used: so
what is asked cannot be led into our own network, by whatever name or answer (SSRF). Redirections
are not followed, and nothing of an answer but its status is read.
"""

import base64
import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from slapos.master.outside import Address, Network, Resolve, is_allowed, resolved
from slapos.protocol.errors import InvalidFields

#: Seconds for a step of it, and for all that comes once there is a connection.
STEP = 10.0
WHOLE = 20.0
PREFIX = "whsec_"
PORTS = {"http": 80, "https": 443}


class NotSent(Exception):
    """There was no answer; the text says why."""


@dataclass(frozen=True)
class Sender:
    """Sends to `networks`; without any, by TLS to public addresses only."""

    networks: tuple[Network, ...]
    context: ssl.SSLContext
    resolve: Resolve
    patience: float = WHOLE

    def check(self, url: str) -> None:
        """Raise InvalidFields when a URL could never be sent to."""
        parts = _split(url)
        if parts.scheme == "http" and not self.networks:
            raise _wrong("only https is allowed")
        with suppress(ValueError):
            address = ipaddress.ip_address(parts.hostname or "")
            if not self._is_allowed(address):
                raise _wrong("that address is not allowed")

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """Return the status that a POST is answered with; raises NotSent."""
        try:
            parts = _split(url)
            port = parts.port or PORTS[parts.scheme]
            if parts.scheme == "http" and not self.networks:
                raise NotSent("only https is allowed")
            address = self._address(parts.hostname or "")
            with socket.create_connection((str(address), port), timeout=STEP) as plain:
                return self._ask(plain, parts, body, headers)
        except InvalidFields as error:
            raise NotSent("; ".join(error.fields.values())) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotSent(f"{type(error).__name__}: {error}") from error

    def _ask(
        self, plain: socket.socket, parts: SplitResult, body: bytes, headers: dict[str, str]
    ) -> int:
        host = parts.hostname or ""
        used = plain
        if parts.scheme == "https":
            used = self.context.wrap_socket(
                plain, server_hostname=host, do_handshake_on_connect=False
            )
        is_late = threading.Event()
        stop = threading.Timer(self.patience, _hang_up, (used, is_late))
        stop.daemon = True
        stop.start()
        with used:
            try:
                if isinstance(used, ssl.SSLSocket):
                    used.do_handshake()
                connection = http.client.HTTPConnection(host, timeout=STEP)
                connection.sock = used
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("POST", target, body, {"Host": parts.netloc, **headers})
                status = connection.getresponse().status
            finally:
                stop.cancel()
        if is_late.is_set():
            raise NotSent(f"there was no whole answer within {self.patience:g} s")
        return status

    def _address(self, host: str) -> Address:
        """Return an address of a host, such as may be sent to."""
        found = [ipaddress.ip_address(each) for each in self.resolve(host)]
        if not all(map(self._is_allowed, found)) or not found:
            raise NotSent("that address is not allowed")
        return found[0]

    def _is_allowed(self, address: Address) -> bool:
        return is_allowed(address, self.networks)


def system_sender(networks: tuple[Network, ...]) -> Sender:
    """Return what sends by this machine's names and certificates."""
    return Sender(networks, ssl.create_default_context(), resolved)


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message, as Standard Webhooks has it: HMAC-SHA256, version 1."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def new_secret(token: str) -> str:
    """Return a secret, made of a token of chance."""
    return PREFIX + base64.b64encode(token.encode()).decode()


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError as error:
        raise _wrong("it is no URL") from error
    if parts.scheme not in PORTS or not parts.hostname or not has_port:
        raise _wrong("it must be a URL such as https://example.com/hook")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise _wrong("it must have no user, password or fragment")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise _wrong("it has characters that a URL cannot have")
    return parts


def _wrong(reason: str) -> InvalidFields:
    return InvalidFields(f"the URL of a webhook cannot be used: {reason}", {"url": reason})


def _hang_up(connection: socket.socket, is_late: threading.Event) -> None:
    is_late.set()
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
