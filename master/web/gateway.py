"""From the web server (ASGI) to the application (WSGI), which takes a thread for a moment only.

A request is read in whole before a thread sees it, so slow clients cost none.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from urllib.parse import unquote_to_bytes

from slapos.master.certificates.showing import CERTIFICATE
from slapos.master.http import MAXIMUM_BODY
from slapos.master.web.workers import Workers

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Coroutine[Any, Any, Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[str, str]]
Environ = dict[str, Any]
WsgiApplication = Callable[..., Iterable[bytes]]
AtOnce = Callable[[Environ], Awaitable[tuple[str, Headers, bytes] | None]]

#: A body that is longer waits on disk until it is there in whole.
IN_MEMORY = 512 * 1024
#: What is more than this of a body that is too large is not even read.
PATIENCE = 16 * MAXIMUM_BODY
#: An answer that is longer, and does not say how long it is, is sent on piece by piece.
WHOLE = 1024 * 1024
#: Answers of these statuses have no content.
NO_CONTENT = frozenset({204, 304})


class Gone(Exception):
    """The client has closed the connection."""


class Gateway:
    """An ASGI application that asks a WSGI application in one of a number of threads.

    `at_once` is asked first, without a thread: so it must not keep the event loop waiting.
    """

    def __init__(
        self, application: WsgiApplication, workers: Workers, at_once: AtOnce | None = None
    ) -> None:
        self._application = application
        self._workers = workers
        self._at_once = at_once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body, size = await _read_body(receive)
        except Gone:
            return
        if body is None:
            await _refuse(send)
            return
        with body:
            environ = _environ(scope, body, size)
            answer = _Answer(receive, send)
            kept = await self._at_once(environ) if self._at_once is not None else None
            if kept is not None:
                status, headers, content = kept
                answer.start_response(status, headers)
                await answer.end(content)
                return
            try:
                work = partial(_ask, self._application, environ, answer)
                await answer.end(await self._workers.run(work))
            except Gone:
                pass
            finally:
                answer.close()


class _Answer:
    """An answer on its way, sent by the event loop, or piece by piece by a thread."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive, self._send = receive, send
        self._gone: asyncio.Task[Message] | None = None
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []

    def start_response(
        self, status: str, headers: Headers, _error: object = None
    ) -> Callable[[bytes], object]:
        """Take in how the answer begins (WSGI)."""
        self.status = int(status.split(" ", 1)[0])
        self.headers = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers]
        return self.send_from_thread

    def send_from_thread(self, content: bytes) -> None:
        """Send a piece, and wait while the client has too much of it to read."""
        asyncio.run_coroutine_threadsafe(self._send_piece(content), self._loop).result()

    async def _send_piece(self, content: bytes) -> None:
        if self._gone is None:
            await self._begin()
            self._gone = self._loop.create_task(self._receive())
        if self._gone.done():
            raise Gone
        await self._send({"type": "http.response.body", "body": content, "more_body": True})

    async def end(self, content: bytes) -> None:
        """Send the rest, or all of it."""
        if self._gone is None:
            if self.status not in NO_CONTENT and not self._has_length():
                self.headers.append((b"content-length", b"%d" % len(content)))
            await self._begin()
        await self._send({"type": "http.response.body", "body": content, "more_body": False})

    def close(self) -> None:
        """Stop watching whether the client is still there."""
        if self._gone is not None:
            self._gone.cancel()

    async def _begin(self) -> None:
        await self._send(
            {"type": "http.response.start", "status": self.status, "headers": self.headers}
        )

    def _has_length(self) -> bool:
        return any(name == b"content-length" for name, _ in self.headers)


def _ask(application: WsgiApplication, environ: Environ, answer: _Answer) -> bytes:
    """Ask the application; return what it answers, or the end of it when that is long."""
    pieces = application(environ, answer.start_response)
    try:
        collected: list[bytes] = []
        size = 0
        for piece in pieces:
            collected.append(piece)
            size += len(piece)
            if size > WHOLE and len(collected) > 1:
                answer.send_from_thread(b"".join(collected))
                collected, size = [], 0
        return collected[0] if len(collected) == 1 else b"".join(collected)
    finally:
        close: Callable[[], None] | None = getattr(pieces, "close", None)
        if close is not None:
            close()


async def _read_body(receive: Receive) -> tuple[IO[bytes] | None, int]:
    """Return the body of a request and its size; None when it is too large. Raises Gone."""
    message = await receive()
    content: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body"):
        return (BytesIO(content) if len(content) <= MAXIMUM_BODY else None), len(content)
    body = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - it is given away
    size = 0
    while message["type"] == "http.request":
        content = message.get("body", b"")
        size += len(content)
        if size <= MAXIMUM_BODY:
            body.write(content)
        if size > PATIENCE or not message.get("more_body"):
            break
        message = await receive()
    if message["type"] != "http.request" or size > MAXIMUM_BODY:
        body.close()
        if message["type"] != "http.request":
            raise Gone
        return None, size
    body.seek(0)
    return body, size


async def _refuse(send: Send) -> None:
    told = f"the request has more than the {MAXIMUM_BODY >> 20} MB that are taken"
    content = json.dumps({"error": "request_entity_too_large", "message": told}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def environ_of(scope: Scope) -> Environ:
    """Return what a WSGI application is told of a request without a body."""
    return _environ(scope, BytesIO(), 0)


def _environ(scope: Scope, body: IO[bytes], size: int) -> Environ:
    """Return what a WSGI application is told of a request."""
    host, port = scope["server"] or ("localhost", None)
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or 80),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": scope["client"][0] if scope["client"] else "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        if b"_" in name:
            continue  # it could be taken for another one with a hyphen
        key = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    shown = scope.get("extensions", {}).get(CERTIFICATE)
    if shown is not None:
        environ[CERTIFICATE] = shown["der"]
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    environ.pop("HTTP_CONTENT_LENGTH", None)
    if environ.pop("HTTP_TRANSFER_ENCODING", None) or size:
        environ["CONTENT_LENGTH"] = str(size)
    return environ
