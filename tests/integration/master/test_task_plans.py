"""What the master does by itself goes by an index, in every task, however much there is."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, select

from slapos.master.app import create_app
from slapos.master.monitoring import losses
from slapos.master.monitoring.model import NodeLoss
from slapos.master.nodes.model import ComputeNode
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.settings import Profile, Settings
from slapos.master.tasks.registry import TASKS
from slapos.master.tasks.task import Turn
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.catalogue import add_product, add_supply
from tests.integration.master.factories import request_form
from tests.integration.master.full import World, by_header
from tests.integration.master.test_query_plans import Asked, scans

#: What grows beside what a local master has.
MORE = {
    *("audit_log", "software_installations", "supply_nodes", "persons", "memberships", "sign_ins"),
    *("kept_answers", "webhook_deliveries", "certificates", "one_time_links", "sign_in_attempts"),
    *("mails", "known_addresses", "refusals", "remote_requests", "openid_attempts"),
}
#: What some tasks look at as a whole: all nodes, some thousands, by those that are about all nodes;
#: marks, of which there are few but for a moment, once in a while. Another index would cost each
#: change of a row more than these looks.
WHOLE = {
    "watch_nodes": {"compute_nodes", "node_exchanges"},
    "invalidate_closed_nodes": {"compute_nodes"},
    "tidy_supplies": {"compute_nodes"},
    "mend_marks": {"task_marks"},
}


@pytest.fixture
def app(settings: Settings, clock: FakeClock) -> Iterator[Flask]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    yield app
    app.extensions["slapos"].database.close()


@pytest.fixture
def world(app: Flask) -> World:
    """Services of which some have a place and some wait."""
    world = World(app, 3)
    with world.session() as session:
        add_supply(session, add_product(session), ["COMP-1"])
        session.commit()
    for title in ("a", "b", "c", "d", "e"):
        world.as_("P-11").post("/requestComputerPartition", data=request_form(title))
    return world


@pytest.fixture
def asked(app: Flask) -> Asked:
    found: Asked = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        if "pg_notify" not in statement:  # a thread of its own tells others
            found.append((statement, values))

    event.listen(app.extensions["slapos"].database.engine, "before_cursor_execute", note)
    return found


def run(world: World, name: str, keys: list[str] | None) -> None:
    parts = world.parts
    with world.session() as session:
        turn = Turn(
            session=session,
            clock=parts.clock,
            identifiers=parts.identifiers,
            settings=parts.settings,
            policy=parts.policy,
            keys=keys,
        )
        TASKS[name].run(turn)
        session.rollback()


def test_no_task_scans(world: World, asked: Asked) -> None:
    """For everything, as each does by the clock: there it has most to look at."""
    found: dict[str, list[str]] = {}
    for name in TASKS:
        asked.clear()
        run(world, name, None)
        made = list(asked)
        assert made, name
        found[name] = list(scans(world.parts.database.engine, made, MORE, WHOLE.get(name, ())))
    assert {name: bad for name, bad in found.items() if bad} == {}


def test_emptying_a_lost_node_scans_nothing(world: World, asked: Asked, clock: FakeClock) -> None:
    with world.session() as session:
        for instance in session.scalars(select(SoftwareInstance)):
            instance.filters = {"reallocate": "1"}
        node_id = session.scalars(select(ComputeNode.id).filter_by(reference="COMP-1")).one()
        now = clock.now()
        session.add(NodeLoss(node_id=node_id, heard_at=now, lost_at=now, released_at=now))
        session.commit()
    asked.clear()
    run(world, losses.REALLOCATE, ["COMP-1"])
    assert any("INSERT INTO software_instances" in statement for statement, _ in asked)
    assert list(scans(world.parts.database.engine, list(asked), MORE)) == []
