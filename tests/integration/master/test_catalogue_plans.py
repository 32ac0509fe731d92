"""What is asked of nodes and the catalogue goes by an index, however many there are."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event

from slapos.master.app import create_app
from slapos.master.catalog import products, supplies, upkeep, use
from slapos.master.settings import Profile, Settings
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.factories import URL
from tests.integration.master.full import World, by_header
from tests.integration.master.test_query_plans import Asked, scans

#: Beside those of all requests.
GROWING = {"supply_nodes", "software_installations", "node_categories"}


@pytest.fixture
def world(settings: Settings, clock: FakeClock) -> Iterator[World]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    yield World(app)
    app.extensions["slapos"].database.close()


@pytest.fixture
def engine(world: World) -> Engine:
    return world.parts.database.engine


@pytest.fixture
def asked(engine: Engine) -> Asked:
    found: Asked = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        # Of what is done for many at once, one tells the plan.
        found.append((statement, values[0] if isinstance(values, list) else values))

    event.listen(engine, "before_cursor_execute", note)
    return found


@pytest.fixture
def supply(world: World) -> str:
    clock = world.parts.clock
    with world.session() as session:
        product = products.create(session, clock, project="PROJ-1", title="web").reference
        products.add_release(session, clock, product, url=URL)
        products.add_type(session, product, name="default")
        cells = [supplies.Cell(product=product, release=URL, type="default")]
        wanted: supplies.SupplyChange = {"nodes": ["COMP-1"], "cells": cells}
        made = supplies.create(session, clock, project="PROJ-1", title="all", wanted=wanted)
        session.commit()
        return made.reference


READ = [
    "/v1/nodes",
    "/v1/installations?node=COMP-1",
    f"/v1/installations?url={URL}",
    "/v1/installations",
    f"/v1/products?release={URL}",
    "/v1/supplies/{supply}",
    "/v1/supplies/{supply}/nodes",
]


@pytest.mark.parametrize("path", READ)
def test_a_page_scans_nothing(
    world: World, engine: Engine, asked: Asked, supply: str, path: str
) -> None:
    asked.clear()
    answer = world.as_("P-21").get(path.format(supply=supply))
    assert answer.status_code == 200
    asked[:] = [each for each in asked if "LIMIT" not in each[0]]  # one page of an index
    assert list(scans(engine, list(asked), GROWING)) == []


def test_an_operators_changes_scan_nothing(
    world: World, engine: Engine, asked: Asked, supply: str
) -> None:
    manager = world.as_("P-21")
    asked.clear()
    wanted = {"title": "x", "allocation_scope": "open", "categories": {"region": "eu"}}
    assert manager.patch("/v1/nodes/COMP-1", json=wanted).status_code == 200
    body = {"node": "COMP-1", "url": URL}
    assert manager.post("/v1/installations", json=body).status_code == 201
    path = f"/v1/supplies/{supply}"
    assert manager.delete(f"{path}/nodes/COMP-1").status_code == 204
    assert manager.post(f"{path}/nodes", json={"nodes": ["COMP-1"]}).status_code == 200
    assert manager.delete("/v1/nodes/COMP-1").status_code == 204
    assert list(scans(engine, list(asked), GROWING)) == []


def test_upkeep_scans_nothing(world: World, engine: Engine, asked: Asked) -> None:
    clock = world.parts.clock
    with world.session() as session:
        asked.clear()
        sought = {"after": 0, "last": 500, "before": clock.now()}
        session.scalars(upkeep.UNUSED, sought).all()
        session.scalars(upkeep.MISSED, sought).all()
        use.is_used(session, 1, URL)
        use.nodes_with(session, 1, URL)
    assert list(scans(engine, list(asked), GROWING)) == []
