"""Where the master listens, and where it does not."""

import ipaddress
import socket
import ssl

from slapos.master.settings import Settings
from slapos.protocol.errors import InvalidConfiguration, SlapOSError

#: Connections that wait to be taken up.
BACKLOG = 1024


class CannotListen(SlapOSError):
    """The address cannot be listened on."""

    code = "cannot_listen"


def listen(host: str, port: int, *, change: str) -> socket.socket:
    """Return a socket that listens; `change` says where another port can be given."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {host} port {port}: {error.strerror or error}; end the program that "
            f"uses the port, or give another one with {change}"
        ) from error


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_unsafe(settings: Settings) -> None:
    """Raise InvalidConfiguration when passwords and tokens would cross a network unencrypted."""
    if is_loopback(settings.host) or settings.tls or settings.trusted_proxies:
        return
    raise InvalidConfiguration(
        f"{settings.host} can be reached from other machines, and passwords and tokens would go "
        "there unencrypted: set tls = true, or trusted_proxies to the web "
        "server in front that speaks TLS, or host = 127.0.0.1"
    )


def check_certificate(settings: Settings) -> None:
    """Raise InvalidConfiguration when the certificate or its key cannot be used."""
    if settings.certificate_file is None:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.certificate_file, settings.key_file)
    except OSError as error:
        raise InvalidConfiguration(
            f"the certificate {settings.certificate_file} cannot be used with the key "
            f"{settings.key_file}: {error.strerror or error}; both are PEM, the certificate first "
            "and then what signed it, and this user has to be able to read them"
        ) from error


def own_url(settings: Settings, port: int | None = None) -> str:
    """Return the URL that the master has for those on its own machine."""
    scheme = "https" if settings.tls else "http"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return url_of(host, settings.port if port is None else port, scheme)


def url_of(host: str, port: int, scheme: str = "http") -> str:
    """Return the URL of what listens."""
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"
