"""Where Prometheus asks: an HTTP server on a loopback port or a unix socket.

It has one thread, and gives each caller little time: a partition's user can reach the port, too,
and must not be able to keep the node from its work.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import TCPServer

from slapos.node.monitor.address import Address

logger = logging.getLogger(__name__)

#: Seconds that a caller may be silent.
PATIENCE = 2.0


class MetricsEndpoint:
    """Answers `GET /metrics` in a thread of its own."""

    def __init__(self, address: Address, text: Callable[[], str]) -> None:
        """`text` returns the answer. Raises OSError where it cannot listen."""
        self._path = address if isinstance(address, Path) else None
        self._server = _Server(address, text)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class _Server(HTTPServer):
    def __init__(self, address: Address, text: Callable[[], str]) -> None:
        self.text = text
        if isinstance(address, Path):
            self.address_family = socket.AF_UNIX
            with suppress(FileNotFoundError):  # left by one that was killed
                address.unlink()
        elif ":" in address[0]:
            self.address_family = socket.AF_INET6
        bound = str(address) if isinstance(address, Path) else address
        super().__init__(bound, _Handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        """Bind, with no look-up of our own name, which needs a network."""
        TCPServer.server_bind(self)
        if self.address_family == socket.AF_UNIX:
            os.chmod(str(self.server_address), 0o660)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing much: it is the caller who went away."""
        logger.debug("a caller of the metrics got no answer", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE

    def do_GET(self) -> None:
        if self.path.partition("?")[0] not in ("/metrics", "/"):
            self.send_error(404)
            return
        body = self.server.text().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        logger.debug("metrics: %s", format % arguments)

    def address_string(self) -> str:
        return str(self.client_address)
