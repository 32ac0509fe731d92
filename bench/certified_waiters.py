"""6,100 nodes that wait on the change feed of a full master, each with a certificate of its own.

    python -m bench certified_waiters

Each database is measured twice, with the same certificates: over TLS that the master ends itself,
and over plain HTTP, where a web server in front would have ended it and says in a header whose
certificate it was. The difference is what TLS costs.
"""

import base64
import os
import random
import resource
import selectors
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from sqlalchemy import insert, select

from bench.feed_waiters import cpu_seconds, cpu_share, memory
from bench.fleet import BEFORE, Fleet, make
from bench.full_server import FRONT
from bench.lean_client import get, post
from bench.measure import Figure, show
from bench.slapproxy_peer import free_port, running
from slapos.master.certificates import authorities
from slapos.master.certificates.authorities import PURPOSE, Issuing
from slapos.master.certificates.authority import SubjectKind, certificate_text
from slapos.master.certificates.model import IssuedCertificate
from slapos.master.certificates.service import serial_text
from slapos.master.database import Database, open_database
from slapos.master.identity.caller import SYSTEM, Role
from slapos.master.identity.credentials import PersonalToken
from slapos.master.identity.model import Membership
from slapos.master.identity.one_way import hash_of
from slapos.master.identity.secret_box import SecretBox
from slapos.master.nodes.model import ComputeNode, NodeExchange
from slapos.master.presence import APPLICATION
from slapos.master.secret_file import make_secret_file, read_secret
from slapos.master.settings import database_url
from slapos.protocol.certificate_request import make_key
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers
from tests.database import Postgresql

FLEET = Fleet(nodes=int(os.environ.get("SLAPOS_BENCH_NODES", "6100")), instances=24_400)
CHANGES = 300
#: Nodes that connect before memory is looked at first: what the first ones cost is the master's.
FIRST = 100
TOKEN = f"slapos_benchmark{0:025}"


@dataclass(frozen=True)
class World:
    """A master's database and files, and the nodes: by reference, certificate (PEM) and token."""

    url: str
    secret: Path
    authority: Path
    key: str
    nodes: Mapping[str, tuple[str, str]]


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    load = os.getloadavg()[0]
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="slapos-bench-") as folder:
        server = Postgresql(durable=True)
        try:
            figures += _both("PostgreSQL", server.url(server.empty()), Path(folder))
        finally:
            server.stop()
        figures += _both("SQLite", str(Path(folder, "master.db")), Path(folder))
    show(figures)
    print(f"load of the machine: {load:.1f} before, {os.getloadavg()[0]:.1f} after")


def _both(name: str, url: str, folder: Path) -> Iterator[Figure]:
    world = _make(url, folder)
    plain, listening = _measure(world, folder, over_tls=False)
    tls, _ = _measure(world, folder, over_tls=True)
    count = len(world.nodes)
    for what, unit in UNITS.items():
        yield Figure(
            f"{name}, {count} nodes wait over TLS: {what}",
            tls[what],
            unit,
            beside="TLS ended in front",
            beside_median=plain[what],
            ratio=tls[what] / plain[what] if plain[what] else None,
            runs=CHANGES,
        )
    if listening is not None:
        yield Figure(f"{name}: connections of the web process that listen", listening, "")


#: What is measured, and in which unit.
UNITS = {
    "memory of the master for each": "kB",
    "an order for one until it is told, p50": "s",
    "the same, p99": "s",
    "processor time of the master meanwhile": "s/s",
    "processor time of the master for one that connects and waits": "s",
}


def _measure(
    world: World, folder: Path, *, over_tls: bool
) -> tuple[dict[str, float], float | None]:
    """Return the figures of UNITS, and how many connections to PostgreSQL listen."""
    port = free_port()
    command = [sys.executable, "-m", "bench.full_server", world.url, str(world.secret), str(port)]
    command += [] if over_tls else [FRONT]
    with ExitStack() as stack:
        process = stack.enter_context(running(command, port, folder / "log"))
        crowd = Crowd(port, world, over_tls=over_tls)
        stack.callback(crowd.close)
        names = list(world.nodes)
        crowd.enter(names[:FIRST])
        crowd.settle()
        for _ in range(20):
            crowd.change_one()
        first = memory(process.pid)
        used = cpu_seconds(process.pid)
        crowd.enter(names[FIRST:])
        crowd.settle()
        entered = (cpu_seconds(process.pid) - used) / len(names[FIRST:])
        full = memory(process.pid)
        delays = sorted(crowd.change_one() for _ in range(CHANGES))
        listening = _listening(world.url)
        measured = (
            (full - first) / len(names[FIRST:]),
            statistics.median(delays),
            delays[int(CHANGES * 0.99)],
            cpu_share(process.pid),
            entered,
        )
    return dict(zip(UNITS, measured, strict=True)), listening


class Crowd:
    """The waiting nodes, all in this process, and an administrator who orders."""

    def __init__(self, port: int, world: World, *, over_tls: bool) -> None:
        self._port, self._world, self._over_tls = port, world, over_tls
        self._selector = selectors.DefaultSelector()
        self._connections: dict[str, socket.socket] = {}
        self._identity = world.authority.with_name("identity.pem")
        self._arrived = 0.0
        self._orders = self._connect(None)

    def enter(self, references: list[str]) -> None:
        """Connect nodes and let them wait."""
        for number, reference in enumerate(references):
            if number % 50 == 0:
                self._told(0)  # those whose token was an old one, before the master gives them up
            certificate, token = self._world.nodes[reference]
            connection = self._connect(certificate)
            self._wait(connection, reference, token)
            connection.setblocking(False)
            self._connections[reference] = connection
            self._selector.register(connection, selectors.EVENT_READ, reference)

    def settle(self) -> None:
        """Wait until all of them wait: those whose token was an old one have been told."""
        while self._told(1):
            pass
        # The master may have given up this connection, on which nothing was asked meanwhile.
        self._orders.close()
        self._orders = self._connect(None)

    def change_one(self) -> float:
        """Order something for one node; return the seconds from then until it is told."""
        reference = random.choice(list(self._connections))
        form = {"url": f"https://example.org/{random.random()}", "computer_id": reference}
        message = post("/supplySupply", form, Authorization=f"Bearer {TOKEN}")
        started = time.perf_counter()
        self._orders.sendall(message)
        deadline = started + 60
        while reference not in self._told(1):
            if time.perf_counter() > deadline:
                raise RuntimeError(f"{reference} was not told: {self._orders.recv(65536)[:500]!r}")
        arrived = self._arrived
        answered = b""
        while not answered.endswith(b" to be available"):
            answered += self._orders.recv(65536)
            if b" 200 " not in answered[:20]:
                raise RuntimeError(repr(answered[:500]))
        return arrived - started

    def _connect(self, certificate: str | None) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._over_tls:
            return connection
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self._world.authority)
        if certificate is not None:
            self._identity.write_text(self._world.key + certificate)
            context.load_cert_chain(self._identity)
        return context.wrap_socket(connection, server_hostname="127.0.0.1")

    def _wait(self, connection: socket.socket, reference: str, token: str) -> None:
        headers = {}
        if not self._over_tls:
            pem = x509.load_pem_x509_certificate(self._world.nodes[reference][0].encode())
            der = pem.public_bytes(serialization.Encoding.DER)
            headers["X-SSL-Client-Cert"] = base64.b64encode(der).decode()
        path = f"/v1/nodes/{reference}/changes?since={token}&wait=60"
        connection.sendall(get(path, **headers))

    def _told(self, timeout: float) -> list[str]:
        """Take what has been answered, and let these wait again."""
        told = []
        for key, _ in self._selector.select(timeout):
            connection, reference = self._connections[key.data], key.data
            received = _receive(connection)
            if not received:
                continue  # of TLS itself, such as a session ticket
            self._arrived = time.perf_counter()
            while b'"token"' not in received:
                if b" 200 " not in received[:20]:
                    raise RuntimeError(f"{reference}: {received[:500]!r}")
                received += _receive(connection)
            token = received.decode().partition('"token": "')[2].partition('"')[0]
            self._wait(connection, reference, token)
            told.append(reference)
        return told

    def close(self) -> None:
        for connection in (self._orders, *self._connections.values()):
            connection.close()
        self._selector.close()


def _receive(connection: socket.socket) -> bytes:
    """Return what has come, decrypted; nothing when that is none of the other side's data."""
    received = b""
    while True:
        try:
            more = connection.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return received
        if not more:
            raise RuntimeError(f"the master has closed a connection after {received[:500]!r}")
        received += more


def _make(url: str, folder: Path) -> World:
    secret = folder / "secret"
    secret.unlink(missing_ok=True)
    make_secret_file(secret, SystemIdentifiers())
    database = open_database(database_url(url), caller=SYSTEM)
    make(database, FLEET)
    world = _certify(database, url, secret)
    _make_administrator(database)
    database.close()
    return world


def _certify(database: Database, url: str, secret: Path) -> World:
    """Issue a certificate to each node; they share a key, as making thousands measures nothing."""
    issuing = Issuing(SystemClock(), SecretBox(read_secret(secret), PURPOSE))
    key = make_key()
    private = serialization.load_pem_private_key(key.encode(), None)
    now, life = issuing.clock.now(), timedelta(days=14)
    with database.writing.begin() as session:
        row = authorities.ensure_authority(session, issuing)
        session.flush()
        signer = authorities.load(issuing, row)
        nodes, rows = {}, []
        for node_id, reference, change in session.execute(
            select(ComputeNode.id, ComputeNode.reference, NodeExchange.change)
            .join(NodeExchange, NodeExchange.node_id == ComputeNode.id)
            .where(ComputeNode.id > BEFORE)
        ):
            made = signer.issue(SubjectKind.NODE, reference, private.public_key(), now, life)  # type: ignore[arg-type]
            nodes[reference] = (certificate_text(made), change)
            rows.append(
                {
                    "serial": serial_text(made),
                    "authority_id": row.id,
                    "kind": SubjectKind.NODE,
                    "node_id": node_id,
                    "issued_at": now,
                    "not_after": made.not_valid_after_utc,
                }
            )
        session.execute(insert(IssuedCertificate), rows)
        authority = secret.with_name("authority.pem")
        authority.write_text(authorities.bundle(session, issuing.clock))
    return World(url, secret, authority, key, nodes)


def _make_administrator(database: Database) -> None:
    now = datetime.now(UTC)
    with database.writing.begin() as session:
        session.add(
            Membership(
                person_id=BEFORE + 1, project_id=None, role=Role.ADMINISTRATOR, created_at=now
            )
        )
        session.add(
            PersonalToken(
                person_id=BEFORE + 1,
                title="benchmark",
                hash=hash_of(TOKEN),
                scopes="operate",
                created_at=now,
                expires_at=now + timedelta(days=1),
            )
        )


def _listening(url: str) -> float | None:
    """Return how many connections of masters last said LISTEN, or listen and were asked since."""
    if not url.startswith("postgresql"):
        return None
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'idle' "
            "AND (query LIKE 'LISTEN %%' OR query = 'SELECT 1')",
            (APPLICATION,),
        ).fetchone()
    return None if found is None else float(found[0])


if __name__ == "__main__":
    main()
