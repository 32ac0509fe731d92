"""What is asked all the time goes by an index, however many instances and partitions there are."""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, event

from slapos.master.feed.waiting import Looks
from slapos.master.http import Assembly
from slapos.master.monitoring import promises
from slapos.master.nodes.tasks import forget_taken_reports
from slapos.master.tasks.runner import Runner
from slapos.master.tasks.task import Done, Task, Turn, sense
from slapos.master.tasks.worker import Doors, make_rows
from tests.fakes import NOON
from tests.integration.master.factories import NODE, URL, format_form, request_form

GROWING = {
    "instance_trees",
    "software_instances",
    "compute_partitions",
    "compute_nodes",
    "node_exchanges",
    "taken_reports",
    "task_marks",
    "instance_promises",
    "promise_changes",
    "promise_reports",
}
ROOT = {"computer_id": NODE, "computer_partition_id": "slappart0"}

Asked = list[tuple[str, Any]]


@pytest.fixture
def engine(app: Flask) -> Engine:
    engine: Engine = app.extensions["slapos"].database.engine
    return engine


@pytest.fixture
def asked(engine: Engine) -> Asked:
    """What the database has been asked: each statement with its values."""
    found: Asked = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        if "pg_notify" not in statement:  # a thread of its own tells others
            found.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    return found


@pytest.fixture
def tree(client: FlaskClient) -> FlaskClient:
    client.post("/loadComputerConfigurationFromXML", data=format_form(4))
    assert client.post("/requestComputerPartition", data=request_form()).status_code == 200
    return client


CALLS: dict[str, dict[str, str]] = {
    "a new root": request_form("other"),
    "a new child": request_form("child") | ROOT,
    "a new shared instance": request_form("shared", shared=True),
    "the same again": request_form(),
    "a change": request_form(parameters={"colour": "blue"}),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_request_scans_nothing(
    tree: FlaskClient, engine: Engine, asked: Asked, what: str
) -> None:
    asked.clear()
    assert tree.post("/requestComputerPartition", data=CALLS[what]).status_code == 200
    assert list(scans(engine, list(asked))) == []


def test_a_node_that_asks_or_reports_scans_nothing(
    tree: FlaskClient, engine: Engine, asked: Asked
) -> None:
    asked.clear()
    assert tree.get(f"/getFullComputerInformation?computer_id={NODE}").status_code == 200
    assert tree.post("/startedComputerPartition", data=ROOT).status_code == 200
    assert list(scans(engine, list(asked))) == []


def test_a_node_that_waits_scans_nothing(tree: FlaskClient, engine: Engine, asked: Asked) -> None:
    """Nor do many: those who are new, those who may have a change, and that they are there."""
    parts: Assembly = tree.application.extensions["slapos"]
    looks = Looks(parts.database.looking)
    asked.clear()
    assert tree.get(f"/v1/nodes/{NODE}/changes?since=x&information=1").status_code == 200
    assert looks.at({1: "x"}, {NODE, "other"})[1].keys() == {NODE}
    with parts.database.writing.begin() as session:
        session.execute(looks.contact, {"now": parts.clock.now(), "listed": [1, 2]})
    assert list(scans(engine, list(asked))) == []


def test_reports_scan_nothing(tree: FlaskClient, engine: Engine, asked: Asked) -> None:
    tree.post("/supplySupply", data={"url": URL, "computer_id": NODE})
    reports = [
        {"id": "0" * 32, "kind": "instance", "partition": "slappart0", "state": "started"},
        {"id": "1" * 32, "kind": "release", "url": URL, "state": "available"},
        {"id": "2" * 32, "kind": "usage", "document": "<journal/>"},
        *(
            {
                "id": f"{failed:d}" * 31 + "3",
                "kind": "promises",
                "partition": "slappart0",
                "results": [{"name": "works", "failed": failed}],
            }
            for failed in (True, False)
        ),
    ]
    asked.clear()
    answer = tree.post(f"/v1/nodes/{NODE}/reports", json={"reports": reports})
    assert len(answer.get_json()["taken"]) == 5
    for path in ("promises", "promises/history"):
        assert tree.get(f"/v1/instances/{NODE}-slappart0/{path}").status_code == 200
    with tree.application.extensions["slapos"].database.writing.begin() as session:
        promises.forget_old(session, NOON)
    assert list(scans(engine, list(asked))) == []


def test_tasks_scan_nothing(tree: FlaskClient, engine: Engine, asked: Asked) -> None:
    """Looking what is due, taking marks out, having them wait; once a day a task may scan nodes."""
    parts: Assembly = tree.application.extensions["slapos"]
    doors = Doors(
        database=parts.database,
        clock=parts.clock,
        identifiers=parts.identifiers,
        settings=parts.settings,
        policy=parts.policy,
    )

    def fail(turn: Turn) -> Done:
        raise ValueError("no")

    runs = {"fail": fail, "forget": forget_taken_reports}
    tasks = {name: Task(name=name, summary="", run=run) for name, run in runs.items()}
    make_rows(doors, tasks)
    with parts.database.writing.begin() as session:
        for name in tasks:
            sense(session, name)
            sense(session, name, "SOFTINST-1")
    asked.clear()
    runner = Runner(doors, tasks)
    while not runner.round():
        pass
    assert len(asked) > 10
    assert list(scans(engine, list(asked))) == []


def test_a_scan_is_found(tree: FlaskClient, engine: Engine) -> None:
    scan = "SELECT software_instances.id FROM software_instances WHERE error != ''"
    assert len(list(scans(engine, [(scan, ())]))) == 1


def test_a_new_root_takes_few_statements(tree: FlaskClient, engine: Engine, asked: Asked) -> None:
    """Five that look, two rows that are made, the partition and the node's version.

    PostgreSQL makes both rows by one statement.
    """
    asked.clear()
    tree.post("/requestComputerPartition", data=request_form("other"))
    expected = 9 if engine.dialect.name == "sqlite" else 8
    made = [statement for statement, _ in asked if not statement.startswith("BEGIN")]
    assert len(made) == expected


def scans(
    engine: Engine, asked: Asked, more: Collection[str] = (), but: Collection[str] = ()
) -> Iterator[str]:
    """Give the statements that look at every row of a table that grows, `but` some tables."""
    growing = GROWING.union(more).difference(but)
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            # It prefers to scan what is small: where it cannot but scan, it still does.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, values in asked:
            if not re.match("SELECT|UPDATE|DELETE", statement):
                continue
            if engine.dialect.name == "postgresql":
                answer = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values)
                plan = answer.scalar_one()
                plan = json.loads(plan) if isinstance(plan, str) else plan
                scanned = set(_scanned(plan[0]["Plan"]))
            else:
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
                steps = [re.match(r"SCAN (\w+)", row.detail) for row in rows]
                scanned = {re.sub(r"_\d+$", "", step[1]) for step in steps if step}
            if scanned & growing:
                yield f"{scanned & growing}: {statement}"


def _scanned(plan: dict[str, Any]) -> Iterator[str]:
    by_index = "Index Cond" in plan or plan["Node Type"] == "Bitmap Heap Scan"
    if "Relation Name" in plan and plan["Node Type"] != "ModifyTable" and not by_index:
        yield plan["Relation Name"]
    for inner in plan.get("Plans", ()):
        yield from _scanned(inner)
