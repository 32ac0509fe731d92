"""A large fleet in a database, made in SQL: nodes full of instances, customers, a catalogue.

    python -m bench.fleet DATABASE_URI [--nodes 610] [--instances 200000]

Each tenth partition of a node is free as far as there are instances for; every fourth instance is
the root of a tree. Rows are made by the database itself, so two million instances take minutes.
"""

import argparse
import time
from dataclasses import dataclass

from sqlalchemy import Connection

from slapos.master import migrations
from slapos.master.database import Database, open_database
from slapos.master.settings import database_url

NODES, INSTANCES = 610, 200_000
#: Partitions of a node that stay free.
FREE = 12
PROJECTS, CUSTOMERS = 10, 1000
#: Instances of a tree.
TREE = 4
RELEASE = "https://example.org/hello/software.cfg"
TYPE = "default"
#: Ids that the fleet's rows begin after, in each table.
BEFORE = 100
#: Tables whose next row gets a number of its own.
_SERIAL = [
    "persons",
    "projects",
    "memberships",
    "compute_nodes",
    "compute_partitions",
    "software_products",
    "software_releases",
    "software_types",
    "allocation_supplies",
    "software_installations",
    "instance_trees",
    "software_instances",
    "reference_numbers",
]
WHEN = "'2026-11-01 12:00:00'"


@dataclass(frozen=True)
class Fleet:
    """How large it is."""

    nodes: int = NODES
    instances: int = INSTANCES
    projects: int = PROJECTS
    customers: int = CUSTOMERS
    free: int = FREE

    @property
    def per_node(self) -> int:
        """How many instances are on a node."""
        return -(-self.instances // self.nodes)

    @property
    def partitions(self) -> int:
        """How many partitions a node has."""
        return self.per_node + self.free


def make(database: Database, fleet: Fleet) -> None:
    """Fill a database that has nothing in it."""
    migrations.upgrade(database)
    # No parameters: signs such as % and : stand for themselves.
    engine = database.engine.execution_options(no_parameters=True)
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            # Rows are right by how they are made; looking each one up would take hours.
            connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        for what, statement in _statements(connection, fleet):
            begun = time.perf_counter()
            made = connection.exec_driver_sql(statement).rowcount
            print(f"{what}: {made} in {time.perf_counter() - begun:.1f} s", flush=True)
        if connection.dialect.name == "postgresql":
            _advance_sequences(connection)
        else:  # other tables' rows have their numbers from what is there
            connection.exec_driver_sql("INSERT INTO reference_numbers (id) VALUES (10000000)")
            connection.exec_driver_sql("DELETE FROM reference_numbers")
    is_postgresql = database.engine.dialect.name == "postgresql"
    with database.looking.connect() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE" if is_postgresql else "ANALYZE")


def _series(connection: Connection, count: int) -> str:
    """Return a table `n(i)` of 1 … count."""
    if connection.dialect.name == "postgresql":
        return f"(SELECT i FROM generate_series(1, {count}) AS i) AS n"
    return (
        "(WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c "
        f"WHERE i < {count}) SELECT i FROM c) AS n"
    )


def _statements(connection: Connection, fleet: Fleet) -> list[tuple[str, str]]:
    def n(count: int) -> str:
        return _series(connection, count)

    per, partitions, b = fleet.per_node, fleet.partitions, BEFORE
    trees = -(-fleet.instances // TREE)
    # Instance i is on node (i-1)/per, in its partition (i-1)%per; its tree is (i-1)/TREE.
    node_of, place_of = f"((i - 1) / {per})", f"((i - 1) % {per})"
    project_of_tree = f"(((i - 1) * {TREE} / {per}) % {fleet.projects} + {b} + 1)"
    true, false = ("true", "false") if connection.dialect.name == "postgresql" else ("1", "0")
    return [
        (
            "persons",
            "INSERT INTO persons (id, reference, email, name, state, created_at) "
            f"SELECT {b} + i, 'P-' || ({b} + i), 'customer-' || i || '@example.com', "
            f"'customer ' || i, 'active', {WHEN} FROM {n(fleet.customers)}",
        ),
        (
            "projects",
            "INSERT INTO projects (id, reference, title, state, owner_id, created_at) "
            f"SELECT {b} + i, 'PROJ-' || ({b} + i), 'project ' || i, 'active', {b} + i, {WHEN} "
            f"FROM {n(fleet.projects)}",
        ),
        (
            "memberships",
            "INSERT INTO memberships (person_id, project_id, role, created_at) "
            f"SELECT {b} + i, {b} + 1 + (i - 1) % {fleet.projects}, 'customer', {WHEN} "
            f"FROM {n(fleet.customers)}",
        ),
        (
            "nodes",
            "INSERT INTO compute_nodes "
            "(id, reference, title, project_id, allocation_scope, created_at, formatted_at) "
            f"SELECT {b} + i, 'COMP-' || ({b} + i), 'node ' || i, "
            f"{b} + 1 + (i - 1) % {fleet.projects}, 'open', {WHEN}, {WHEN} "
            f"FROM {n(fleet.nodes)}",
        ),
        (
            "exchanges",
            "INSERT INTO node_exchanges (node_id, version, change, contacted_at) "
            f"SELECT {b} + i, 1, 'change' || i, {WHEN} FROM {n(fleet.nodes)}",
        ),
        (
            "partitions",
            "INSERT INTO compute_partitions (id, node_id, reference, state) "
            f"SELECT {b} + i, {b} + 1 + (i - 1) / {partitions}, "
            f"'slappart' || ((i - 1) % {partitions}), "
            f"CASE WHEN (i - 1) % {partitions} < {per} "
            f"AND ((i - 1) / {partitions}) * {per} + (i - 1) % {partitions} < {fleet.instances} "
            f"THEN 'busy' ELSE 'free' END FROM {n(fleet.nodes * partitions)}",
        ),
        (
            "addresses",
            "INSERT INTO partition_addresses (partition_id, position, interface, address) "
            f"SELECT {b} + i, 0, 'slaptap', '2001:db8::' || i FROM {n(fleet.nodes * partitions)}",
        ),
        (
            "products",
            "INSERT INTO software_products "
            "(id, reference, project_id, title, description, state, created_at) "
            f"SELECT {b} + i, 'PROD-' || ({b} + i), {b} + i, 'hello', '', 'published', {WHEN} "
            f"FROM {n(fleet.projects)}",
        ),
        (
            "releases",
            "INSERT INTO software_releases (id, product_id, url, version, effective_at, created_at)"
            f" SELECT {b} + i, {b} + i, '{RELEASE}', '1', {WHEN}, {WHEN} FROM {n(fleet.projects)}",
        ),
        (
            "types",
            "INSERT INTO software_types (id, product_id, name, weight) "
            f"SELECT {b} + i, {b} + i, '{TYPE}', 1 FROM {n(fleet.projects)}",
        ),
        (
            "supplies",
            "INSERT INTO allocation_supplies (id, reference, project_id, title, enabled, "
            "shared_in_same_tree, installs_by_need, created_at) "
            f"SELECT {b} + i, 'SUPPLY-' || ({b} + i), {b} + i, 'all', {true}, {false}, {true}, "
            f"{WHEN} FROM {n(fleet.projects)}",
        ),
        (
            "nodes of supplies",
            "INSERT INTO supply_nodes (supply_id, node_id) "
            f"SELECT {b} + 1 + (i - 1) % {fleet.projects}, {b} + i FROM {n(fleet.nodes)}",
        ),
        (
            "cells",
            "INSERT INTO supply_cells (supply_id, release_id, type_id) "
            f"SELECT {b} + i, {b} + i, {b} + i FROM {n(fleet.projects)}",
        ),
        (
            "installations",
            "INSERT INTO software_installations (node_id, url, requested_state, created_at, "
            "reported_state, reported_at, message) "
            f"SELECT {b} + i, '{RELEASE}', 'available', {WHEN}, 'available', {WHEN}, '' "
            f"FROM {n(fleet.nodes)}",
        ),
        (
            "trees",
            "INSERT INTO instance_trees "
            "(id, reference, title, shared, project_id, owner_id, created_at) "
            f"SELECT {b} + i, 'HOSTSUBS-' || ({b} + i), 'tree ' || i, {false}, {project_of_tree}, "
            f"{b} + 1 + (i - 1) % {fleet.customers}, {WHEN} FROM {n(trees)}",
        ),
        (
            "instances",
            "INSERT INTO software_instances (id, reference, tree_id, is_root, requester_id, "
            "node_id, partition_id, title, shared, software_url, software_type, requested_state, "
            "parameters, connection, filters, created_at, changed_at, reported_state, reported_at, "
            "reported_for, reported_since, error, revision) "
            f"SELECT {b} + i, 'SOFTINST-' || ({b} + i), {b} + 1 + (i - 1) / {TREE}, "
            f"(i - 1) % {TREE} = 0, "
            f"CASE WHEN (i - 1) % {TREE} = 0 THEN NULL ELSE {b} + i - (i - 1) % {TREE} END, "
            f"{b} + 1 + {node_of}, {b} + 1 + {node_of} * {partitions} + {place_of}, "
            f"'instance ' || ((i - 1) % {TREE}), {false}, '{RELEASE}', '{TYPE}', 'started', "
            """'{"name": "Ada"}', '{"url": "http://[2001:db8::1]:8080/"}', '{}', """
            f"{WHEN}, {WHEN}, 'started', {WHEN}, {WHEN}, {WHEN}, '', 1 "
            f"FROM {n(fleet.instances)}",
        ),
    ]


def _advance_sequences(connection: Connection) -> None:
    """Let what is made next come after the fleet."""
    for table in _SERIAL:
        connection.exec_driver_sql(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 10000000)"
        )


def main() -> None:
    """Fill the database that is named."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument("database_uri")
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--instances", type=int, default=INSTANCES)
    arguments = parser.parse_args()
    database = open_database(database_url(arguments.database_uri))
    begun = time.perf_counter()
    make(database, Fleet(arguments.nodes, arguments.instances))
    print(f"made in {time.perf_counter() - begun:.0f} s")
    database.close()


if __name__ == "__main__":
    main()
