"""Where the metrics may be asked for."""

import ipaddress
import re
from pathlib import Path

Address = tuple[str, int] | Path

_PORT = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:]+)\]|(?P<four>[0-9.]+)|localhost):(?P<port>[0-9]+)")


def read_address(text: str) -> Address | None:
    """Return where to listen, None for nowhere. Raises ValueError.

    It is `127.0.0.1:PORT`, `[::1]:PORT` or the path of a unix socket.
    """
    if not text:
        return None
    if text.startswith("/"):
        return Path(text)
    match = _PORT.fullmatch(text)
    host = ipaddress.ip_address((match["six"] or match["four"] or "127.0.0.1") if match else "::")
    if match is None or not host.is_loopback:
        raise ValueError("it must be 127.0.0.1:PORT, [::1]:PORT or the path of a unix socket")
    if not 0 < int(match["port"]) < 65536:
        raise ValueError(f"there is no port {match['port']}")
    return str(host), int(match["port"])
