"""What nodes ask over and over of a full master, beside a Flask view that does nothing.

    python -m bench full_view

One server process, over TLS, on connections that are kept, by certificate: first on PostgreSQL,
then on SQLite. The views are asked in turn by one client of its own process. Reports come in
batches of 100 from four nodes at once; beside them, the rows that they write are written by the
driver in as large transactions, on as many connections.
"""

import os
import secrets
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import select

from bench.fleet import RELEASE, Fleet, make
from bench.full_server import EMPTY
from bench.lean_client import LeanClient, Shown, get, post, post_json
from bench.measure import Figure, of_pairs, show
from bench.slapproxy_peer import free_port, running
from slapos.master.certificates import authorities
from slapos.master.certificates import service as certificates
from slapos.master.certificates.authorities import PURPOSE, Issuing
from slapos.master.database import Database, open_database
from slapos.master.identity.caller import SYSTEM
from slapos.master.identity.secret_box import SecretBox
from slapos.master.nodes.model import ComputeNode
from slapos.master.secret_file import make_secret_file, read_secret
from slapos.master.settings import database_url
from slapos.protocol.certificate_request import make_key, make_request
from slapos.protocol.marshal import dumps
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers
from tests.database import Postgresql

#: Nodes that report at once, and partitions of each.
NODES, BUSY = 4, 100
FLEET = Fleet(nodes=20, instances=2000)
TURNS, BATCH = 40, 20
#: Batches of reports that each node sends in a turn, and turns.
BATCHES, REPORT_TURNS = 10, 6
INFORMATION = "/getFullComputerInformation?computer_id=COMP-101"
BEFORE = "2026-11-01T12:00:00+00:00"
PLACE = {"computer_partition_id": "slappart0"}
GZIP = {"Accept-Encoding": "gzip"}


@dataclass
class World:
    """A master with a fleet, the port that it listens on, and clients with certificates."""

    port: int
    nodes: Sequence[LeanClient]
    instance: LeanClient
    names: Sequence[str]


def main() -> None:
    load = os.getloadavg()[0]
    server = Postgresql(durable=True)
    try:
        url = server.url(server.empty())
        with _world(url) as world:
            figures = [*_views("PostgreSQL", world), *_reports("PostgreSQL", world, _bare_pg(url))]
    finally:
        server.stop()
    with tempfile.TemporaryDirectory(prefix="slapos-bench-") as folder:
        path = Path(folder, "master.db")
        with _world(str(path)) as world:
            figures += [*_views("SQLite", world), *_reports("SQLite", world, _bare_sqlite(path))]
    show(figures)
    print(f"load of the machine: {load:.1f} before, {os.getloadavg()[0]:.1f} after")


class _world(ExitStack):  # noqa: N801 - it is used as a function
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def __enter__(self) -> World:  # type: ignore[override]
        super().__enter__()
        folder = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="slapos-bench-")))
        secret, port = folder / "secret", free_port()
        make_secret_file(secret, SystemIdentifiers())
        database = open_database(database_url(self._url), caller=SYSTEM)
        make(database, FLEET)
        names = [f"COMP-{101 + number}" for number in range(NODES)]
        shown = _certify(database, secret, folder, names)
        database.close()
        command = [sys.executable, "-m", "bench.full_server", self._url, str(secret), str(port)]
        self.enter_context(running(command, port, folder / "log"))
        clients = [LeanClient(each) for each in shown]
        for client in clients:
            self.callback(client.close)
        return World(port, clients[:NODES], clients[NODES], names)


def _certify(
    database: Database, secret: Path, folder: Path, names: Sequence[str]
) -> Sequence[Shown]:
    """Return what each node shows, and last what the instance in the first partition does."""
    issuing = Issuing(SystemClock(), SecretBox(read_secret(secret), PURPOSE))
    found = []
    with database.writing.begin() as session:
        authorities.ensure_authority(session, issuing)
        for name in [*names, ""]:
            key = make_key()
            request = make_request(key, "x")
            if name:
                node = session.scalars(
                    select(ComputeNode).where(ComputeNode.reference == name)
                ).one()
                issued = certificates.certify_node(session, issuing, node, request)
            else:
                _, issued = certificates.certify_partition(
                    session, issuing, names[0], "slappart0", request
                )
            identity, authority = folder / f"{name}.pem", folder / "authority.pem"
            identity.write_text(key + issued.certificate)
            authority.write_text(issued.authority)
            found.append(Shown(authority, identity))
    return found


def _views(name: str, world: World) -> Iterator[Figure]:
    node, instance, port = world.nodes[0], world.instance, world.port
    etag = node.etag(port, get(INFORMATION))
    form = {
        "software_release": RELEASE,
        "software_type": "default",
        "partition_reference": "instance 1",
        "shared_xml": dumps(False).decode(),
        "partition_parameter_xml": dumps({"name": "Ada"}).decode(),
        "filter_xml": dumps({}).decode(),
        "state": dumps("started").decode(),
    }
    asked = {
        f"full view of a node with {BUSY} partitions": (node, get(INFORMATION)),
        "the same, compressed": (node, get(INFORMATION, **GZIP)),
        "the same, nothing new (304)": (node, get(INFORMATION, **{"If-None-Match": etag})),
        "a repeated request": (instance, post("/requestComputerPartition", form)),
        "a status report by itself": (
            node,
            post("/startedComputerPartition", {"computer_id": "COMP-101", **PLACE}),
        ),
    }
    for what, (client, message) in asked.items():
        pairs = [
            (client.ask(port, [message] * BATCH), client.ask(port, [get(EMPTY)] * BATCH))
            for _ in range(TURNS + 1)
        ][1:]
        figure = of_pairs(f"{name}: {what}", "an empty Flask view", pairs)
        figure.notes["rate"] = statistics.median(b / a for a, b in pairs)
        yield figure


def _reports(
    name: str, world: World, bare: Callable[[int, str], Callable[[], None]]
) -> Iterator[Figure]:
    for what, fields in (
        ("unchanged", lambda _turn: {"state": "started", "since": BEFORE}),
        ("changed", lambda turn: {"error": f"it is broken, {turn}"}),
    ):
        ours, limit = [], []
        for turn in range(REPORT_TURNS + 1):
            batches = [
                [
                    post_json(
                        f"/v1/nodes/{node}/reports", {"reports": _batch(fields(f"{turn}-{number}"))}
                    )
                    for number in range(BATCHES)
                ]
                for node in world.names
            ]
            begun = time.perf_counter()
            for client, messages in zip(world.nodes, batches, strict=True):
                client.begin(world.port, messages)
            for client in world.nodes:
                client.end()
            ours.append(time.perf_counter() - begun)
            limit.append(_at_once([bare(number, what) for number in range(NODES)]))
        total = NODES * BATCHES * BUSY
        pairs = list(zip(ours, limit, strict=True))[1:]
        rates = [(total / a, total / b) for a, b in pairs]
        figure = of_pairs(
            f"{name}: {what} status reports a second, in batches", "their rows by the driver", rates
        )
        figure.unit = "/s"
        yield figure


def _batch(fields: dict[str, Any]) -> list[dict[str, Any]]:
    at = datetime.now(UTC).isoformat()
    return [
        {
            "id": secrets.token_hex(16),
            "at": at,
            "kind": "instance",
            "partition": f"slappart{number}",
            "state": None,
            "error": None,
            "timestamp": None,
            "since": at,
            **fields,
        }
        for number in range(BUSY)
    ]


def _at_once(works: Sequence[Callable[[], None]]) -> float:
    """Return how long it takes to have all done, each in a thread."""
    threads = [threading.Thread(target=work) for work in works]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun


_numbers = count(1)


def _rows(node: int) -> list[tuple[str, int]]:
    """Return ids of reports, and of the instances of a node that they are about."""
    return [(secrets.token_hex(16), 101 + node * BUSY + each) for each in range(BUSY)]


def _bare_pg(url: str) -> Callable[[int, str], Callable[[], None]]:
    def write(node: int, what: str) -> None:
        with psycopg.connect(url) as connection:
            for _ in range(BATCHES):
                now, rows = datetime.now(UTC), _rows(node)
                connection.execute(
                    "INSERT INTO taken_reports (node_id, report_id, taken_at) "
                    "SELECT %s, unnest(%s::text[]), %s",
                    (101 + node, [each for each, _ in rows], now),
                )
                if what == "changed":
                    connection.execute(
                        "UPDATE software_instances SET error = %s, reported_at = %s, "
                        "reported_for = changed_at, reported_since = %s, revision = revision + 1 "
                        "WHERE id = ANY(%s)",
                        (f"bare {next(_numbers)}", now, now, [each for _, each in rows]),
                    )
                connection.execute(
                    "UPDATE node_exchanges SET contacted_at = %s WHERE node_id = %s",
                    (now, 101 + node),
                )
                connection.commit()

    return lambda node, what: partial(write, node, what)


def _bare_sqlite(path: Path) -> Callable[[int, str], Callable[[], None]]:
    def write(node: int, what: str) -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            for _ in range(BATCHES):
                now, rows = datetime.now(UTC).isoformat(" "), _rows(node)
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(
                    "INSERT INTO taken_reports (node_id, report_id, taken_at) VALUES (?, ?, ?)",
                    [(101 + node, each, now) for each, _ in rows],
                )
                if what == "changed":
                    message = f"bare {next(_numbers)}"
                    connection.executemany(
                        "UPDATE software_instances SET error = ?, reported_at = ?, reported_for = "
                        "changed_at, reported_since = ?, revision = revision + 1 WHERE id = ?",
                        [(message, now, now, each) for _, each in rows],
                    )
                connection.execute(
                    "UPDATE node_exchanges SET contacted_at = ? WHERE node_id = ?",
                    (now, 101 + node),
                )
                connection.execute("COMMIT")

    return lambda node, what: partial(write, node, what)


if __name__ == "__main__":
    main()
