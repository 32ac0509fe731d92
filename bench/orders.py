"""Orders that are allocated durably, beside bare INSERTs of the same rows in the same run.

    python -m bench orders                       61 and 610 nodes, PostgreSQL and SQLite, and HTTP
    SLAPOS_BENCH_NODES=6100 SLAPOS_BENCH_INSTANCES=2000000 python -m bench orders

The services are asked without the web layer, as a full master does: by a customer, with the audit
log, webhooks and the change feed. The bare limit are the rows of such an order (tree, instance,
two entries of the audit log, busy partition, counted change), written by the driver alone in one
transaction an order, by as many connections.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

from bench import bare_orders, orders_over_http
from bench.fleet import BEFORE, INSTANCES, NODES, RELEASE, Fleet, make
from bench.measure import Figure, show
from slapos.master.app import CONNECTIONS
from slapos.master.audit.recording import record_changes
from slapos.master.database import open_database
from slapos.master.identity.caller import Caller, CallerKind, Role, serve
from slapos.master.identity.model import Tenant
from slapos.master.mail.outbox import notices
from slapos.master.nodes.exchange import count_exchanges
from slapos.master.nodes.notifier import announcer_of
from slapos.master.numbering import keep_numbers
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.full_policy import FullPolicy
from slapos.master.provisioning.service import InstanceOrder
from slapos.master.settings import Settings, database_url
from slapos.master.webhooks.outbox import put
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers
from tests.database import Postgresql

#: A round of ours, then one of the bare rows, and so on.
ROUNDS, SECONDS = 2, 5.0
#: Orders of a connection that warm it up, and do not count.
WARMING = 10
#: Free partitions for all that is ordered, bare or not.
PLACES = 120_000

Work = Callable[[str, str, int], Sequence[float]]
#: What the processes of a round begin by, in each of them.
_BEGIN: list[Barrier] = []


@dataclass(frozen=True)
class Hands:
    """How many work: on SQLite one, as one writes at a time."""

    processes: int = 2
    connections: int = 4


@dataclass
class Measured:
    """How long each order took, ours and bare, and how many were made in a second."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


def order(url: str, run: str, connections: int) -> Sequence[float]:
    """Order for a while; return how long each order took."""
    database = open_database(database_url(url), threads=connections + CONNECTIONS, caller=None)
    clock, identifiers = SystemClock(), SystemIdentifiers()
    keep_numbers(database.writing)
    count_exchanges(database.writing, identifiers, announcer_of(database))
    record_changes(database.writing, clock, put, notices(Settings(database_url=url), clock))
    policy = FullPolicy(identifiers)

    def one(lane: int) -> list[float]:
        taken, number, until = [], 0, _begin()
        while time.perf_counter() < until:
            number += 1
            owner = BEFORE + 1 + (number * 7 + lane) % 1000
            project = BEFORE + 1 + (owner - BEFORE - 1) % 10
            asked = InstanceOrder(
                title=f"{run} {lane} {number}",
                software_url=RELEASE,
                tenant=Tenant(project, owner),
            )
            customer = Caller(
                kind=CallerKind.PERSON,
                name=f"P-{owner}",
                id=owner,
                memberships=frozenset({(project, Role.CUSTOMER)}),
            )
            begun = time.perf_counter()
            with database.writing() as session:
                serve(session, customer)
                made = provisioning.request_instance(session, clock, policy, asked)
                session.commit()
            taken.append(time.perf_counter() - begun)
            assert made.partition_id is not None, made.waiting_reason
        return taken

    found = _in_lanes(one, connections)
    database.close()
    return found


def insert(nodes: int, url: str, run: str, connections: int) -> Sequence[float]:
    """Write the rows of orders for a while; return how long those of each order took."""

    def one(lane: int) -> list[float]:
        taken, number, until = [], 0, _begin()
        with bare_orders.opened(url) as write:
            while time.perf_counter() < until:
                number += 1
                node = BEFORE + 1 + (number * 7 + lane * 31) % nodes
                begun = time.perf_counter()
                write(f"{run} {lane} {number}", node)
                taken.append(time.perf_counter() - begun)
        return taken

    return _in_lanes(one, connections)


def _know(begin: Barrier) -> None:
    _BEGIN.append(begin)


def _begin() -> float:
    """Wait until all are there, and return when to end."""
    _BEGIN[0].wait()
    return time.perf_counter() + SECONDS


def _in_lanes(one: Callable[[int], list[float]], lanes: int) -> Sequence[float]:
    with ThreadPoolExecutor(lanes) as pool:
        return [each for taken in pool.map(one, range(lanes)) for each in taken[WARMING:]]


def _run(work: Work, url: str, name: str, hands: Hands) -> list[float]:
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(hands.processes * hands.connections)
    with context.Pool(hands.processes, _know, [begin]) as pool:
        orders = [(url, f"{name} {number}", hands.connections) for number in range(hands.processes)]
        found = pool.starmap(work, orders, chunksize=1)
    return [each for taken in found for each in taken]


def _measure(url: str, fleet: Fleet, hands: Hands) -> Measured:
    database = open_database(database_url(url))
    make(database, fleet)
    database.close()
    measured = Measured()
    for number in range(ROUNDS):
        measured.ours += _run(order, url, f"order {number}", hands)
        measured.bare += _run(partial(insert, fleet.nodes), url, f"bare {number}", hands)
    return measured


def _figures(where: str, fleet: Fleet, hands: Hands, measured: Measured) -> list[Figure]:
    lanes = hands.processes * hands.connections
    ours, bare = sorted(measured.ours), sorted(measured.bare)
    rate, limit = lanes / statistics.mean(ours), lanes / statistics.mean(bare)
    what = f"{where}, {fleet.nodes} nodes, {fleet.instances} instances"
    print(f"{what}: {rate:.0f}/s, bare {limit:.0f}/s", flush=True)
    return [
        Figure(
            f"orders allocated a second, {what}",
            rate,
            "/s",
            beside="bare INSERTs of the same rows",
            beside_median=limit,
            ratio=rate / limit,
            runs=len(ours),
        ),
        _share("an order: p50", ours, bare, 0.5),
        _share("an order: p99", ours, bare, 0.99),
    ]


def _share(name: str, ours: Sequence[float], bare: Sequence[float], share: float) -> Figure:
    a, b = ours[int(len(ours) * share)], bare[int(len(bare) * share)]
    return Figure(name, a, beside="bare", beside_median=b, ratio=a / b, runs=len(ours))


def _fleets() -> list[Fleet]:
    """Return what is measured: as asked, or a tenth of the fleet and a hundredth."""
    if "SLAPOS_BENCH_NODES" in os.environ:
        nodes = int(os.environ["SLAPOS_BENCH_NODES"])
        instances = int(os.environ.get("SLAPOS_BENCH_INSTANCES", INSTANCES))
        sizes = [(nodes, instances)]
    else:
        sizes = [(NODES // 10, INSTANCES // 10), (NODES, INSTANCES)]
    return [Fleet(nodes, instances, free=PLACES // nodes) for nodes, instances in sizes]


def main() -> None:
    figures: list[Figure] = []
    server = Postgresql(durable=True)
    try:
        for fleet in _fleets():
            url, hands = server.url(server.empty()), Hands()
            figures += _figures("PostgreSQL", fleet, hands, _measure(url, fleet, hands))
        # On the largest one.
        figures += orders_over_http.figures(url, server.folder)
    finally:
        server.stop()
    if "SLAPOS_BENCH_NODES" not in os.environ:
        for fleet in _fleets():
            with tempfile.TemporaryDirectory(prefix="slapos-bench-") as folder:
                url, hands = str(Path(folder, "master.db")), Hands(1, 1)
                figures += _figures("SQLite", fleet, hands, _measure(url, fleet, hands))
    show(figures)


if __name__ == "__main__":
    main()
