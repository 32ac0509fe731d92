"""XML-RPC over a unix socket, as supervisord speaks it."""

import http.client
import os
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any

#: Seconds that supervisord gets to answer a call.
ANSWER_TIME = 30.0


class UnixTransport(xmlrpc.client.Transport):
    """XML-RPC over a unix socket, with a time limit."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        """Return a connection to the socket; `host` says nothing."""
        connection = _UnixConnection(os.fspath(self._path))
        self._connection = (host, connection)
        return connection

    def single_request(self, *arguments: Any, **more: Any) -> Any:
        """Ask, and close the connection: a new one costs nothing, and supervisord may restart."""
        try:
            return super().single_request(*arguments, **more)
        finally:
            self.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_TIME)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_TIME)
        self.sock.connect(self._path)
