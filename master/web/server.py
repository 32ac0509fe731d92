"""The web server that `slapos proxy start` runs: uvicorn, with bounds on what clients may do."""

import asyncio
import logging
import resource
import socket
import ssl
from collections.abc import Callable

import uvicorn
from flask import Flask
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from slapos.master.certificates.authorities import Issuing
from slapos.master.certificates.front import FRONT, Front
from slapos.master.certificates.showing import CERTIFICATE
from slapos.master.certificates.views import BOX
from slapos.master.database import Database
from slapos.master.feed.admission import Admission
from slapos.master.feed.asgi import Changes
from slapos.master.feed.waiting import Feed
from slapos.master.feed.watch import watch_of
from slapos.master.http import Assembly
from slapos.master.looks import LookFailed
from slapos.master.settings import Profile
from slapos.master.slap.fast_lane import FAST_LANE, FastLane
from slapos.master.slap.full_lane import FullLane
from slapos.master.slap.node_view import Answer
from slapos.master.tasks import task as tasks
from slapos.master.tasks.registry import tasks_of
from slapos.master.tasks.runner import Runner
from slapos.master.tasks.worker import Doors
from slapos.master.traffic.metrics import METRICS, Metrics
from slapos.master.web.gateway import Application, AtOnce, Environ, Gateway
from slapos.master.web.lookout import Lookout
from slapos.master.web.tls import GLANCE, ServerTls, bound_buffers, peer_certificate
from slapos.master.web.workers import Workers

#: Seconds that a connection may be silent while the server waits for bytes.
IDLE = 120
#: Bytes of a request's head; as those of waitress.
LARGEST_HEAD = 256 * 1024
#: Bytes of an answer that may wait for a slow client in memory before a thread waits for it.
UNSENT = 16 * 1024 * 1024
#: Seconds that requests which are being answered get when the server is told to end.
GRACE = 5
#: Seconds in which the clients of a server that is replaced may still ask on the connections that
#: they have; each is told that it is the last time. Those that are just being made get the shorter.
LINGER, SHORT_LINGER = 5.0, 0.5
LEAVING = "slapos_leaving"
#: A silent connection is asked after 15 s whether its other end is there, and closed after 30 s.
KEEP_ALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
#: File descriptors that are kept for all but connections.
RESERVED = 64

TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain\r\ncontent-length: 31\r\nconnection: close\r\n\r\n"
    b"the head of this is too large\r\n"
)

#: Reasons in capitals, as slapproxy gives them: what clients log of a refusal goes by them.
STATUS_LINE.update({status: line.upper() for status, line in STATUS_LINE.items()})


class Connection(HttpToolsProtocol):
    """A connection that is closed when its client sends nothing, or a head without an end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=UNSENT)
        # Head and content are two packets, of which the second is not to wait for an answer.
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Else a node that waits would seem to be there long after it is gone.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEP_ALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self._head = 0
        self._in_head = False
        self._head_until = 0.0
        self._expect_more()

        self._certificate = peer_certificate(transport)

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request."""
        if self._in_head:
            self._head += len(data)
            if self._head > LARGEST_HEAD:
                self.transport.write(TOO_LARGE)
                self.transport.close()
                return
        super().data_received(data)
        # There is no cycle before the first head is complete.
        is_incomplete = self._in_head or (self.cycle.more_body and not self.cycle.response_complete)
        if is_incomplete and not self.transport.is_closing():
            self._expect_more()

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._head, self._in_head = 0, True
        self._head_until = self.loop.time() + self.timeout_keep_alive
        if self._certificate is not None:
            self.scope["extensions"] = {CERTIFICATE: {"der": self._certificate}}

    def on_headers_complete(self) -> None:
        """Stop counting."""
        super().on_headers_complete()
        self._in_head = False
        if getattr(self.server_state, LEAVING, False):
            self.cycle.keep_alive = False

    def leave(self) -> None:
        """Close the connection after the answer that is being made, or the next one."""
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request
        if cycle is not None:
            cycle.keep_alive = False

    def _expect_more(self) -> None:
        self._unset_keepalive_if_required()
        # Of a body each part counts, as lines are slow; a head has to be there in the end.
        until = self._head_until if self._in_head else self.loop.time() + self.timeout_keep_alive
        self.timeout_keep_alive_task = self.loop.call_at(until, self.timeout_keep_alive_handler)


class Server(uvicorn.Server):
    """Ends at once, but for the requests that are being answered."""

    def __init__(
        self,
        config: uvicorn.Config,
        workers: Workers,
        feed: Feed,
        runner: Runner,
        tls: ServerTls | None = None,
        glance: float = GLANCE,
    ) -> None:
        super().__init__(config)
        self._workers, self._feed, self._runner, self._tls = workers, feed, runner, tls
        self._glance = glance
        self._running: list[asyncio.Task[None]] = []
        self._is_replaced = False
        #: Called in the event loop once it listens.
        self.when_started: Callable[[], None] | None = None
        #: Called in the event loop once no request is answered any more.
        self.when_stopped: Callable[[], None] | None = None

    def leave(self) -> None:
        """End because another server has come up in the place of this one."""
        self._is_replaced = self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, to look for changes, and to do tasks."""
        self._running.append(asyncio.create_task(self._feed.run()))
        if self._tls is not None:
            self._running.append(asyncio.create_task(self._tls.run(self._workers, self._glance)))
        await super().startup(sockets)
        self._runner.start()
        if self.when_started is not None:
            self.when_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let those who wait go, and threads end what they are at."""
        for server in self.servers:
            server.close()
        self._runner.stop()
        if self._is_replaced:
            await self._linger()
        for connection in self.server_state.connections:
            connection.shutdown()
        self._feed.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GRACE
        while loop.time() < deadline and (
            self._workers.busy
            or self._runner.is_working
            or not self._feed.is_empty
            or any(each.transport.get_write_buffer_size() for each in self._connections())
        ):
            await asyncio.sleep(0.01)
        self._workers.stop()
        if self.when_stopped is not None:
            self.when_stopped()
        for task in self._running:
            task.cancel()
        for connection in self._connections():
            connection.transport.abort()  # one that speaks TLS would wait for its client
        await asyncio.sleep(0.01)

    def _connections(self) -> list[Connection]:
        return [each for each in self.server_state.connections if isinstance(each, Connection)]

    async def _linger(self) -> None:
        """Answer on the connections that there are, once on each: so no request is lost."""
        setattr(self.server_state, LEAVING, True)
        for connection in self.server_state.connections:
            connection.leave()  # type: ignore[union-attr]  # they are of our class
        self._feed.close()
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + LINGER and not (
            loop.time() > began + SHORT_LINGER and not self.server_state.connections
        ):
            await asyncio.sleep(0.01)


def make_server(app: Flask, idle: int = IDLE, glance: float = GLANCE) -> Server:
    """Return the server of the master; its `run` serves until SIGTERM or SIGINT.

    `idle` is how long a silent client is kept, `glance` how often authorities and certificate
    files are looked at, both in seconds.
    """
    parts: Assembly = app.extensions["slapos"]
    workers = Workers("request", parts.settings.threads)
    lookout = _lookout(app, parts.database)
    is_at_hand = lookout is not None or parts.database.engine.dialect.name == "sqlite"
    gateway = Gateway(app, workers, _at_once(app, lookout) if is_at_hand else None)
    runner = Runner(_doors(parts), tasks_of(parts.settings.profile))
    watch = watch_of(parts.database.looking, {tasks.CHANNEL: runner.wake})
    feed = Feed(parts.database, parts.clock, watch, parts.announcer)
    metrics: Metrics = app.extensions[METRICS]
    is_local = parts.settings.profile is Profile.LOCAL
    front: Front | None = app.extensions.get(FRONT)
    admits = None if is_local or front is None else Admission(app, parts, workers, front)
    changes = Changes(feed, parts.identifiers, gateway, metrics.waiting, admits)
    tls = None
    if parts.settings.tls:
        bound_buffers()
        tls = ServerTls(parts.settings, parts.database, Issuing(parts.clock, app.extensions[BOX]))
    configuration = configure(changes, idle, tls.context if tls is not None else None)
    server = Server(configuration, workers, feed, runner, tls, glance)
    if lookout is not None:
        server.when_stopped = lookout.close
    return server


def _at_once(app: Flask, lookout: Lookout | None) -> AtOnce:
    """Return what is asked without a thread: a look into SQLite waits for nobody.

    One into PostgreSQL is waited for by the event loop, together with all else. What a web server
    in front says of the client is not at hand here.
    """
    lane: FastLane | FullLane = app.extensions[FAST_LANE]
    front: Front | None = app.extensions.get(FRONT)

    async def ask(environ: Environ) -> Answer | None:
        if front is not None and front.take_over(environ):
            return None
        if lookout is None or not isinstance(lane, FullLane):
            return lane.answer(environ)
        question = lane.question(environ)
        if question is None:
            return None
        try:
            row = await lookout.first(question.look, question.sought)
        except LookFailed:
            return None
        return lane.finish(environ, question, row)

    return ask


def _lookout(app: Flask, database: Database) -> Lookout | None:
    """Return what looks into PostgreSQL from the event loop, in the full profile."""
    lane = app.extensions[FAST_LANE]
    if database.engine.dialect.name == "sqlite" or not isinstance(lane, FullLane):
        return None
    return Lookout(database.glancing, lane.looks)


def _doors(parts: Assembly) -> Doors:
    return Doors(
        database=parts.database,
        clock=parts.clock,
        identifiers=parts.identifiers,
        settings=parts.settings,
        policy=parts.policy,
    )


def configure(
    application: Application, idle: int = IDLE, context: ssl.SSLContext | None = None
) -> uvicorn.Config:
    """Return how an application is served: over TLS with a context."""
    # What goes wrong in the application, it logs itself; the rest is said of clients.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    return uvicorn.Config(
        application,
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_context_factory=None if context is None else lambda _config, _default: context,
        timeout_keep_alive=idle,
        limit_concurrency=resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED,
    )


def allow_connections() -> None:
    """Allow this process as many open files as it may allow itself: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
