"""Somebody listens: on TCP `host` and `port`, or on the Unix socket `pathname` or `abstract`."""

import encodings.idna  # noqa: F401 - which the first connection loads, in each process anew
import socket
from pathlib import Path
from typing import Any

from slapos.node.promise.plugin.counted import CountedPromise, is_address

#: Seconds to get a connection.
CONNECT_TIMEOUT = 5.0


class RunPromise(CountedPromise):
    """Connects, and hangs up."""

    default_count = 3

    def __init__(self, config: dict[str, Any]) -> None:
        """Read the options. Raises ValueError unless they are one address."""
        super().__init__(config)
        host, port, path, abstract = (
            self.getConfig(key) for key in ("host", "port", "pathname", "abstract")
        )
        if [bool(host and port), bool(path), bool(abstract)].count(True) != 1:
            raise ValueError("give one address: host and port, or pathname, or abstract")
        self._tcp = (str(host).strip("[]"), int(self.number("port", 0))) if host else None
        self._unix = str(path) if path else f"\0{abstract}"
        self._shown = f"{host} port {port}" if host else str(path or f"@{abstract}")

    def is_interruptible(self, partition: Path) -> bool:
        """Whether there is no name to look up."""
        return self._tcp is None or is_address(self._tcp[0])

    def sense(self) -> None:
        """Connect."""
        try:
            if self._tcp is not None:
                socket.create_connection(self._tcp, CONNECT_TIMEOUT).close()
            else:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                    connection.settimeout(CONNECT_TIMEOUT)
                    connection.connect(self._unix)
        except OSError as error:
            self.logger.error("nobody answers at %s: %s", self._shown, error)
        else:
            self.logger.info("somebody listens at %s", self._shown)
