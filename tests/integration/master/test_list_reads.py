"""Reading a list takes as many statements for many rows as for few, and none reads all there is."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, event

from slapos.master.app import create_app
from slapos.master.identity.caller import Role
from slapos.master.settings import Profile, Settings
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.catalogue import add_product, add_supply
from tests.integration.master.factories import URL, request_form
from tests.integration.master.full import World, by_header
from tests.integration.master.test_query_plans import GROWING, Asked

ADMINISTRATOR = "P-39"
READERS = {"an administrator": ADMINISTRATOR, "a manager": "P-21", "a customer": "P-11"}
FEW, MANY = 2, 7
#: What grows beside what a local master has.
MORE = {"supply_nodes", "software_installations", "audit_log", "persons", "memberships"}
READS = (
    *("nodes", "nodes?title=node", "nodes?project=PROJ-1", "nodes?scope=open"),
    *("nodes?category=region%3Deu", "nodes?invalidated=true"),
    *("nodes/COMP-1", "nodes/COMP-1/partitions", "nodes/COMP-1/installations"),
    *("installations", "installations?node=COMP-1", "installations?project=PROJ-1"),
    f"installations?url={URL}",
    *("instance-trees", "instance-trees?project=PROJ-1", "instance-trees?title=order+0"),
    *("instance-trees?owner=P-11", "instance-trees/{tree}"),
    *("instances", "instances?node=COMP-1", "instances?project=PROJ-1", "instances?tree={tree}"),
    *("instances?state=started", "instances?state=destroyed", "instances?waits=true"),
    *("instances/{instance}", "instances/{instance}/promises"),
    *("instances/{instance}/promises/history", "instance-nodes", "networks"),
    *("products", "products?project=PROJ-1", "supplies", "supplies?project=PROJ-1"),
    *("persons", "projects", "projects/PROJ-1/members", "projects/PROJ-1/invitations"),
    *("organisations", "tokens", "tasks", "node-losses", "webhooks", "audit"),
    *("audit?object=COMP-1", "audit?caller=P-11"),
)
#: What is lost or waits to be done is counted whole: of both there is little.
LITTLE = {"node-losses", "tasks"}
REFUSED = (403, 404)


@pytest.fixture
def app(settings: Settings, clock: FakeClock) -> Iterator[Flask]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    yield app
    app.extensions["slapos"].database.close()


@pytest.fixture
def world(app: Flask) -> World:
    world = World(app, MANY)
    with world.session() as session:
        world.person(session, 39, (None, Role.ADMINISTRATOR))
        add_supply(session, add_product(session), ["COMP-1"])
        session.commit()
    order(world, range(FEW))
    return world


@pytest.fixture
def asked(app: Flask) -> Asked:
    found: Asked = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        if "pg_notify" not in statement:  # a thread of its own tells others
            found.append((statement, values))

    event.listen(app.extensions["slapos"].database.engine, "before_cursor_execute", note)
    return found


def order(world: World, numbers: range) -> None:
    for number in numbers:
        answer = world.as_("P-11").post(
            "/requestComputerPartition", data=request_form(f"order {number}")
        )
        assert answer.status_code == 200, answer.text


def read_all(world: World, asked: Asked, reader: str) -> dict[str, Asked]:
    """Return the statements of each read that the reader is not refused."""
    (tree, *_) = world.as_("P-11").get("/v1/instance-trees").get_json()["instance_trees"]
    names = {"tree": tree["reference"], "instance": tree["instances"][0]["guid"]}
    found: dict[str, Asked] = {}
    for read in READS:
        asked.clear()
        answer = world.as_(reader).get(f"/v1/{read.format_map(names)}")
        if answer.status_code not in REFUSED:
            assert answer.status_code == 200, (read, answer.text)
            found[read] = list(asked)
    return found


@pytest.mark.parametrize("reader", READERS)
def test_many_rows_take_no_more_statements(world: World, asked: Asked, reader: str) -> None:
    few = read_all(world, asked, READERS[reader])
    order(world, range(FEW, MANY))
    many = read_all(world, asked, READERS[reader])
    assert len(few) > len(READS) / 2
    assert {read: len(made) for read, made in many.items()} == {
        read: len(made) for read, made in few.items()
    }


@pytest.mark.parametrize("reader", READERS)
def test_no_list_reads_everything(world: World, asked: Asked, reader: str) -> None:
    found = read_all(world, asked, READERS[reader])
    engine = world.parts.database.engine
    bad = {
        read: list(reads_everything(engine, made))
        for read, made in found.items()
        if read not in LITTLE
    }
    assert {read: statements for read, statements in bad.items() if statements} == {}


def test_reading_everything_is_found(app: Flask) -> None:
    engine = app.extensions["slapos"].database.engine
    statement = "SELECT title FROM instance_trees ORDER BY created_at LIMIT 3"
    assert list(reads_everything(engine, [(statement, ())])) == [statement]


def reads_everything(engine: Engine, asked: Asked) -> Iterator[str]:
    """Give the statements that look at every row of a table that grows before they answer.

    A page of a list that goes along an index does not: it ends when the page is full.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            # It prefers to scan and sort what is small: where it cannot but do so, it still does.
            for preferred in ("seqscan", "sort", "hashjoin", "hashagg"):
                connection.exec_driver_sql(f"SET LOCAL enable_{preferred} = off")
        for statement, values in asked:
            if not statement.startswith("SELECT"):
                continue
            if engine.dialect.name == "postgresql":
                answer = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values)
                plan = answer.scalar_one()
                plan = json.loads(plan) if isinstance(plan, str) else plan
                read = set(_read(plan[0]["Plan"], is_sorted=False))
            else:
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
                is_sorted = any("TEMP B-TREE FOR ORDER BY" in row.detail for row in rows)
                steps = [re.match(r"SCAN (\w+)", row.detail) for row in rows]
                read = {re.sub(r"_\d+$", "", step[1]) for step in steps if step and is_sorted}
            if read & (GROWING | MORE):
                yield statement


def _read(plan: dict[str, Any], *, is_sorted: bool) -> Iterator[str]:
    """Give the tables that a plan reads whole: by themselves, or along an index to be sorted."""
    kind = plan["Node Type"]
    is_sorted = is_sorted or kind in ("Sort", "Incremental Sort", "Aggregate", "Hash")
    by_index = "Index Cond" in plan or kind == "Bitmap Heap Scan"
    if "Relation Name" in plan and not by_index and (is_sorted or kind == "Seq Scan"):
        yield plan["Relation Name"]
    for inner in plan.get("Plans", ()):
        yield from _read(inner, is_sorted=is_sorted)
