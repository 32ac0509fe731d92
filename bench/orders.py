"""Orders that are allocated durably on PostgreSQL, beside bare INSERTs of the same rows.

    python -m bench orders                       a tenth of the fleet
    SLAPOS_BENCH_NODES=6100 SLAPOS_BENCH_INSTANCES=2000000 python -m bench orders

The services are asked without the web layer, by processes with a few connections each; the bare
limit is the rows of an order (tree, instance, busy partition, counted change), written by the
driver in one transaction an order, by as many connections.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg

from bench.fleet import BEFORE, INSTANCES, NODES, RELEASE, Fleet, make
from bench.measure import Figure, show
from slapos.master.database import open_database
from slapos.master.identity.caller import SYSTEM, serve
from slapos.master.identity.model import Tenant
from slapos.master.nodes.exchange import count_exchanges
from slapos.master.provisioning import service as provisioning
from slapos.master.provisioning.full_policy import FullPolicy
from slapos.master.provisioning.service import InstanceOrder
from slapos.master.settings import database_url
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers
from tests.database import Postgresql

PROCESSES, CONNECTIONS, SECONDS = 2, 4, 8.0

Work = Callable[[str, int, float], list[float]]


def order(url: str, worker: int, until: float) -> list[float]:
    """Order until a time; return how long each order took."""
    database = open_database(database_url(url), threads=CONNECTIONS, caller=None)
    clock, identifiers = SystemClock(), SystemIdentifiers()
    count_exchanges(database.writing, identifiers)
    policy = FullPolicy(identifiers)

    def one(lane: int) -> list[float]:
        taken, number = [], 0
        while time.time() < until:
            number += 1
            customer = BEFORE + 1 + (number * 7 + worker) % 1000
            asked = InstanceOrder(
                title=f"order {worker}-{lane}-{number}",
                software_url=RELEASE,
                tenant=Tenant(BEFORE + 1 + (customer - BEFORE - 1) % 10, customer),
            )
            begun = time.perf_counter()
            with database.writing() as session:
                serve(session, SYSTEM)
                made = provisioning.request_instance(session, clock, policy, asked)
                session.commit()
            assert made.partition_id is not None, made.waiting_reason
            taken.append(time.perf_counter() - begun)
        return taken

    return _in_lanes(one)


def insert(url: str, worker: int, until: float) -> list[float]:
    """Write the rows of orders until a time."""
    now = datetime.now(UTC)

    def one(lane: int) -> list[float]:
        taken, number = [], 0
        with psycopg.connect(url) as connection:
            while time.time() < until:
                number += 1
                begun = time.perf_counter()
                _insert(connection, f"bare {worker}-{lane}-{number}", now)
                connection.commit()
                taken.append(time.perf_counter() - begun)
        return taken

    return _in_lanes(one)


def _insert(connection: psycopg.Connection[Any], title: str, now: datetime) -> None:
    node = BEFORE + 1 + hash(title) % 600
    (tree,) = connection.execute(
        "INSERT INTO instance_trees (reference, title, shared, project_id, owner_id, created_at) "
        "VALUES (%s, %s, false, 101, 101, %s) RETURNING id",
        (title, title, now),
    ).fetchone() or (0,)
    connection.execute(
        "INSERT INTO software_instances (reference, tree_id, is_root, node_id, title, shared, "
        "software_url, software_type, requested_state, parameters, connection, filters, "
        "created_at, changed_at, error, revision) VALUES (%s, %s, true, %s, %s, false, %s, "
        "'default', 'started', '{}', '{}', '{}', %s, %s, '', 1)",
        (title, tree, node, title, RELEASE, now, now),
    )
    connection.execute(
        "UPDATE compute_partitions SET state = 'busy' WHERE id = "
        "(SELECT id FROM compute_partitions WHERE node_id = %s AND state = 'free' "
        "LIMIT 1 FOR UPDATE SKIP LOCKED)",
        (node,),
    )
    connection.execute(
        "UPDATE node_exchanges SET version = version + 1, change = %s WHERE node_id = %s",
        (title[:32], node),
    )


def _in_lanes(one: Callable[[int], list[float]]) -> list[float]:
    with ThreadPoolExecutor(CONNECTIONS) as lanes:
        return [each for taken in lanes.map(one, range(CONNECTIONS)) for each in taken]


def _run(work: Work, url: str) -> list[float]:
    until = time.time() + SECONDS
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        until = time.time() + SECONDS + 3  # that long it takes to begin
        found = pool.starmap(work, [(url, number, until) for number in range(PROCESSES)])
    return sorted(each for taken in found for each in taken)


def main() -> None:
    fleet = Fleet(
        int(os.environ.get("SLAPOS_BENCH_NODES", NODES)),
        int(os.environ.get("SLAPOS_BENCH_INSTANCES", INSTANCES)),
    )
    server = Postgresql(durable=True)
    try:
        url = server.url(server.empty())
        database = open_database(database_url(url))
        make(database, fleet)
        database.close()
        ours, bare = _run(order, url), _run(insert, url)
    finally:
        server.stop()
    lanes = PROCESSES * CONNECTIONS
    rate, limit = lanes / statistics.mean(ours), lanes / statistics.mean(bare)
    show(
        [
            Figure(
                f"orders allocated a second, {fleet.nodes} nodes, {fleet.instances} instances",
                rate,
                "/s",
                beside="bare INSERTs of the same rows",
                beside_median=limit,
                ratio=rate / limit,
                runs=len(ours),
            ),
            Figure("an order: p50", statistics.median(ours), runs=len(ours)),
            Figure("an order: p99", ours[int(len(ours) * 0.99)], runs=len(ours)),
        ]
    )


if __name__ == "__main__":
    main()
