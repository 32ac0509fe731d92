"""What is asked all the time of a full master goes by an index, however much there is."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, event, select

from slapos.master.app import create_app
from slapos.master.catalog.model import AllocationSupply, SoftwareInstallation
from slapos.master.identity.model import Tenant
from slapos.master.nodes.service import ALLOCATE_INSTANCES
from slapos.master.provisioning.service import InstanceOrder, request_instance
from slapos.master.settings import Profile, Settings
from slapos.master.tasks.registry import TASKS
from slapos.master.tasks.task import Turn
from tests.fakes import NOON, FakeClock, FakeIdentifiers
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
def world(app: Flask) -> World:
    world = World(app)
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


def test_a_placed_order_takes_few_statements(world: World, asked: Asked) -> None:
    """Four that look, two numbers, the partition, two rows, the node's version.

    On SQLite a number takes two.
    """
    with world.session() as session:
        supply = session.scalars(select(AllocationSupply)).one()
        supply.shared_in_same_tree = False
        session.add(SoftwareInstallation(node_id=1, url=URL, created_at=NOON))
        session.commit()
    asked.clear()
    order = InstanceOrder(title="x", software_url=URL, tenant=Tenant(1, 11))
    with world.session() as session:
        request_instance(session, world.parts.clock, world.parts.policy, order)
        session.commit()
    most = 14 if world.parts.database.engine.dialect.name == "sqlite" else 12
    assert len([each for each, _ in asked if not each.startswith("BEGIN")]) <= most
