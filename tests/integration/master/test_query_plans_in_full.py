"""What is asked all the time of a full master goes by an index, however much there is."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, event

from slapos.master.app import create_app
from slapos.master.identity.model import Tenant
from slapos.master.nodes.service import ALLOCATE_INSTANCES
from slapos.master.provisioning import lookup
from slapos.master.provisioning.service import InstanceOrder, request_instance
from slapos.master.settings import Profile, Settings
from slapos.master.tasks.registry import TASKS
from slapos.master.tasks.task import Turn
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.catalogue import add_product, add_supply
from tests.integration.master.factories import URL, request_form
from tests.integration.master.full import World, by_header
from tests.integration.master.test_query_plans import Asked, scans

ORDER = "/requestComputerPartition"
MORE = {"supply_nodes", "node_categories", "partition_capabilities", "instance_nodes", "task_marks"}


@pytest.fixture
def app(settings: Settings, clock: FakeClock) -> Iterator[Flask]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    yield app
    app.extensions["slapos"].database.close()


@pytest.fixture
def partitions() -> int:
    return 3


@pytest.fixture
def world(app: Flask, partitions: int) -> World:
    world = World(app, partitions)
    with world.session() as session:
        add_supply(session, add_product(session), ["COMP-1"], shared_in_same_tree=True)
        session.commit()
    return world


@pytest.fixture
def engine(app: Flask) -> Engine:
    engine: Engine = app.extensions["slapos"].database.engine
    return engine


@pytest.fixture
def asked(engine: Engine) -> Asked:
    found: Asked = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        if "pg_notify" not in statement:  # a thread of its own tells others
            found.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    return found


ORDERS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, 200),
    "by node": ({"filters": {"computer_guid": "COMP-1"}}, 200),
    "in a new network": ({"filters": {"mode": "unique_by_network"}}, 408),
    "of a category": ({"filters": {"region": "europe"}}, 408),
    "with a capability": ({"filters": {"capability": "gpu"}}, 408),
    "shared": ({"shared": True}, 408),
}


@pytest.mark.parametrize("what", ORDERS)
def test_an_order_scans_nothing(world: World, engine: Engine, asked: Asked, what: str) -> None:
    fields, status = ORDERS[what]
    client = world.as_("P-11")
    client.post(ORDER, data=request_form("before"))
    asked.clear()
    answer = client.post(ORDER, data=request_form("web", **fields))
    assert answer.status_code == status, answer.text
    assert list(scans(engine, list(asked), MORE)) == []


def test_looking_at_those_that_wait_scans_nothing(
    world: World, engine: Engine, asked: Asked
) -> None:
    for title in ("a", "b", "c", "d", "e"):
        world.as_("P-11").post(ORDER, data=request_form(title))
    parts = world.parts
    asked.clear()
    with world.session() as session:
        for keys in (["node:1", "project:1", "group:x"], None):
            turn = Turn(
                session=session,
                clock=parts.clock,
                identifiers=parts.identifiers,
                settings=parts.settings,
                policy=parts.policy,
                keys=keys,
            )
            for name in (ALLOCATE_INSTANCES, "collect_orphans"):
                TASKS[name].run(turn)
    assert len(asked) > 10
    assert list(scans(engine, list(asked), MORE)) == []


#: What is ordered, and the most statements that it may take, beside BEGIN and COMMIT: a look for
#: one of that title, at the catalogue, the place, the row, the audit log and who is told of it,
#: the node's version. A child may be what shared ones of its tree wait for: who looks for that is
#: told. A shared one chooses among hosts, and has its host processed again.
STATEMENTS: dict[str, tuple[dict[str, Any], int]] = {
    "a root": ({}, 7),
    "a child": ({"is_child": True}, 9),
    "a shared one": ({"is_child": True, "shared": True}, 10),
    "the same root again": ({"title": "before"}, 2),
    "the same child again": ({"title": "before", "is_child": True}, 1),
}


@pytest.mark.parametrize("partitions", [6])
@pytest.mark.parametrize("what", STATEMENTS)
def test_an_order_takes_few_statements(world: World, asked: Asked, what: str) -> None:
    """On SQLite a root is written by two."""
    fields, most = STATEMENTS[what]
    _order(world, asked, title="root")
    _order(world, asked, title="before")
    _order(world, asked, title="before", is_child=True)
    made = _order(world, asked, **fields)
    if what == "a root" and world.parts.database.engine.dialect.name == "sqlite":
        most += 1
    assert len(made) <= most, made


def _order(
    world: World, asked: Asked, *, title: str = "x", is_child: bool = False, shared: bool = False
) -> list[str]:
    """Order something of a customer or, as a child, of her service; return the statements."""
    parts = world.parts
    with world.session() as session:
        root = lookup.find_by_title(session, "root", False, None, Tenant(1, 11))
        asked.clear()
        order = InstanceOrder(
            title=title,
            software_url=URL,
            tenant=Tenant(1, 11),
            requester=root if is_child else None,
            shared=shared,
        )
        request_instance(session, parts.clock, parts.policy, order)
        session.commit()
    return [statement for statement, _ in asked if not statement.startswith("BEGIN")]
