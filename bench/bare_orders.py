"""The rows of an order, written by the driver alone: what an order costs at least."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

import psycopg

from bench.fleet import BEFORE, RELEASE

#: Writes what an order of a title on a node does, and commits.
Write = Callable[[str, int], None]

TREE = (
    "INSERT INTO instance_trees (reference, title, shared, project_id, owner_id, created_at) "
    f"VALUES (%(title)s, %(title)s, false, {BEFORE + 1}, {BEFORE + 1}, %(now)s) RETURNING id"
)
INSTANCE = (
    "INSERT INTO software_instances (reference, tree_id, is_root, node_id, partition_id, title, "
    "shared, software_url, software_type, requested_state, parameters, connection, filters, "
    "created_at, changed_at, error, revision) "
    "VALUES (%(title)s, %(tree)s, true, %(node)s, %(partition)s, %(title)s, false, "
    f"'{RELEASE}', 'default', 'started', '{{}}', '{{}}', '{{}}', %(now)s, %(now)s, '', 1)"
)
PARTITION = (
    "UPDATE compute_partitions SET state = 'busy' WHERE id = (SELECT id FROM compute_partitions "
    "WHERE node_id = %(node)s AND state = 'free' LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id"
)
EXCHANGE = (
    "UPDATE node_exchanges SET version = version + 1, change = %(mark)s WHERE node_id = %(node)s"
)
ENTRY = (
    "INSERT INTO audit_log (at, caller_kind, caller, act, object_kind, object, project_id, "
    "owner_id, changes) "
    "VALUES (%(now)s, 'person', 'P-101', 'create', %(kind)s, %(title)s, 101, 101, "
    """'{"title": [null, "x"], "software_url": [null, "x"], "requested_state": [null, "x"]}')"""
)


@contextmanager
def opened(url: str) -> Iterator[Write]:
    """Connect to a database."""
    if url.startswith("postgresql"):
        with psycopg.connect(url) as postgresql:
            yield lambda title, node: _write(postgresql, str.encode, title, node)
        return
    with closing(sqlite3.connect(url, timeout=60, isolation_level=None)) as sqlite:
        for pragma in ("foreign_keys=ON", "synchronous=FULL"):  # as the master has it
            sqlite.execute(f"PRAGMA {pragma}")

        def write(title: str, node: int) -> None:
            sqlite.execute("BEGIN IMMEDIATE")
            _write(sqlite, _of_sqlite, title, node)

        yield write


@cache
def _of_sqlite(statement: str) -> str:
    return re.sub(r"%\((\w+)\)s", r":\1", statement.replace("FOR UPDATE SKIP LOCKED", ""))


def _write(connection: Any, form: Callable[[str], Any], title: str, node: int) -> None:
    told: dict[str, Any] = {
        "title": title,
        "node": node,
        "now": datetime.now(UTC).isoformat(),
        "mark": title[:32],
    }

    def ask(statement: str, **more: object) -> Any:
        return connection.execute(form(statement), told | more)

    (told["partition"],) = ask(PARTITION).fetchone()
    (told["tree"],) = ask(TREE).fetchone()
    ask(INSTANCE)
    for kind in ("instance tree", "instance"):
        ask(ENTRY, kind=kind)
    ask(EXCHANGE)
    connection.commit()
