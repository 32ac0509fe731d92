"""A client that costs next to nothing: raw sockets, requests made beforehand, its own process."""

import json
import multiprocessing
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlencode

TIMEOUT = 600.0


def get(path: str, **headers: str) -> bytes:
    """Return a GET request as it goes over the wire."""
    return _message("GET", path, headers, b"")


def post(path: str, form: Mapping[str, str], **headers: str) -> bytes:
    """Return a POST request of a form as it goes over the wire."""
    body = urlencode(form).encode()
    headers |= {
        "Content-Type": "application/x-www-form-urlencoded",
        "Content-Length": str(len(body)),
    }
    return _message("POST", path, headers, body)


def post_json(path: str, document: object, **headers: str) -> bytes:
    """Return a POST request of a JSON document as it goes over the wire."""
    body = json.dumps(document).encode()
    headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return _message("POST", path, headers, body)


@dataclass(frozen=True)
class Shown:
    """The files with what a client trusts, and with the key and certificate that it shows."""

    authority: Path
    identity: Path


def _message(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class LeanClient:
    """The client's process; it keeps a connection to each server as long as the server does.

    With `shown` it speaks TLS.
    """

    def __init__(self, shown: Shown | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(target=_work, args=(other_end, shown), daemon=True)
        self._process.start()

    def ask(self, port: int, messages: Sequence[bytes]) -> float:
        """Send requests one after the other, and return the seconds that one took on average.

        A connection that the server closes is opened anew, as each client of it has to.
        """
        return sum(self.times(port, messages)) / len(messages)

    def times(self, port: int, messages: Sequence[bytes]) -> Sequence[float]:
        """Send requests one after the other, and return the seconds that each took."""
        self.begin(port, messages)
        return self._times()

    def etag(self, port: int, message: bytes) -> str:
        """Return the ETag of the answer to a request."""
        self._pipe.send((port, message))
        answer = self._pipe.recv()
        for line in answer.decode("latin-1").splitlines():
            name, _, value = line.partition(":")
            if name.lower() == "etag":
                return str(value.strip())
        raise RuntimeError(f"the answer has no ETag: {answer[:500]!r}")

    def begin(self, port: int, messages: Sequence[bytes]) -> None:
        """Have requests sent one after the other, meanwhile."""
        self._pipe.send((port, messages))

    def end(self) -> float:
        """Wait for the last answer, and return the seconds that all took."""
        return sum(self._times())

    def _times(self) -> Sequence[float]:
        answer: Sequence[float] | str = self._pipe.recv()
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()


def _work(pipe: "Connection", shown: Shown | None) -> None:
    connections: dict[int, socket.socket] = {}
    context = None
    if shown is not None:
        context = ssl.create_default_context(cafile=shown.authority)
        context.load_cert_chain(shown.identity)
    while (order := pipe.recv()) is not None:
        port, messages = order
        if isinstance(messages, bytes):  # whoever sends one alone wants to know how it is answered
            pipe.send(_ask(connections, port, messages, context))
            continue
        try:
            times = []
            for message in messages:
                started = time.perf_counter()
                _ask(connections, port, message, context)
                times.append(time.perf_counter() - started)
            pipe.send(times)
        except (OSError, RuntimeError) as error:
            pipe.send(f"{message[:80]!r}: {error}")


def _ask(
    connections: dict[int, socket.socket],
    port: int,
    message: bytes,
    context: ssl.SSLContext | None,
) -> bytes:
    """Ask, and return the head of the answer."""
    connection = connections.get(port)
    if connection is None:
        connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            connection = context.wrap_socket(connection, server_hostname="127.0.0.1")
        connections[port] = connection
    connection.sendall(message)
    received = connection.recv(65536)
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += _more(connection)
    head = received[:end].lower() + b"\r\n"
    if head[9:12] not in (b"200", b"201", b"304"):
        raise RuntimeError(received[:500].decode(errors="replace"))
    missing = end + 4 + _length(head) - len(received)
    while missing > 0:
        missing -= len(_more(connection))
    if b"\r\nconnection: close\r\n" in head:
        connections.pop(port).close()
    return received[:end]


def _more(connection: socket.socket) -> bytes:
    received = connection.recv(1 << 20)
    if not received:
        raise RuntimeError("the server closed the connection in the middle of an answer")
    return received


def _length(head: bytes) -> int:
    name = b"\r\ncontent-length:"
    found = head.find(name)
    return int(head[found + len(name) : head.find(b"\r\n", found + 2)]) if found >= 0 else 0
