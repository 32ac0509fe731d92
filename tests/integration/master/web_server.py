"""The web server in a thread, and raw connections to it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask

from slapos.master.web.server import make_server


@contextmanager
def served(app: Flask, idle: int = 120, glance: float = 30) -> Iterator[int]:
    """Serve an application, and give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server(app, idle, glance)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(60)
        assert not thread.is_alive()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """Give a connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        yield connection


def answer_of(connection: socket.socket) -> bytes:
    """Return one whole answer, head and content."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more:
            return received
        received += more
    head, _, content = received.partition(b"\r\n\r\n")
    lines = [line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:]]
    missing = int(dict(lines).get(b"content-length", b"0")) - len(content)
    while missing > 0:
        more = connection.recv(65536)
        assert more, received
        received += more
        missing -= len(more)
    return received


def is_closed(connection: socket.socket) -> bool:
    """Wait until the server closes a connection."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True
