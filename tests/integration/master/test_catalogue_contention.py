"""What is removed while others are at it: each is told what is so, and nothing is half there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import func, select

from slapos.master.app import create_app
from slapos.master.catalog import products, supplies
from slapos.master.catalog.model import ProductState, SupplyCell
from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import ComputeNode, ComputePartition
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.settings import Profile, Settings
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers
from tests.integration.master.factories import URL, request_form
from tests.integration.master.full import HEADER, World, by_header

ROUNDS = 8
#: Who asks, by which method, where, and with what.
Asked = tuple[str, str, str, dict[str, Any]]


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, SystemClock(), SystemIdentifiers(), by_header)
    yield World(app)
    app.extensions["slapos"].database.close()


def product_of(world: World) -> str:
    clock = world.parts.clock
    with world.session() as session:
        product = products.create(session, clock, project="PROJ-1", title="web").reference
        products.add_release(session, clock, product, url=URL)
        products.add_type(session, product, name="default")
        products.change(session, product, {"state": ProductState.PUBLISHED})
        session.commit()
        return product


def new_node(world: World, title: str, supply: str | None = None) -> str:
    with world.session() as session:
        made = nodes.create(session, world.parts.clock, 1, title)
        made.partitions = [ComputePartition(reference="slappart0")]
        session.flush()
        if supply is not None:
            supplies.add_nodes(session, supply, [made.reference])
        session.commit()
        return made.reference


def at_once(world: World, *asked: Asked) -> tuple[int, ...]:
    """Have all ask at the same moment; return their answers' statuses."""
    barrier = Barrier(len(asked))

    def ask(each: Asked) -> int:
        who, method, path, content = each
        barrier.wait(30)
        answer = world.app.test_client().open(path, method=method, headers={HEADER: who}, **content)
        return int(answer.status_code)

    with ThreadPoolExecutor(len(asked)) as pool:
        return tuple(pool.map(ask, asked))


def test_a_node_is_removed_or_used_never_both(world: World) -> None:
    product = product_of(world)
    with world.session() as session:
        cells = [supplies.Cell(product=product, release=URL, type="default")]
        wanted: supplies.SupplyChange = {"cells": cells}
        clock = world.parts.clock
        supply = supplies.create(session, clock, project="PROJ-1", title="x", wanted=wanted)
        session.commit()
        reference = supply.reference
    for number in range(ROUNDS):
        node = new_node(world, f"n{number}", reference)
        form = request_form(f"web{number}", filters={"computer_guid": node})
        body = {"node": node, "url": "https://example.org/other.cfg"}
        removed, ordered, installed = at_once(
            world,
            ("P-21", "DELETE", f"/v1/nodes/{node}", {}),
            ("P-11", "POST", "/requestComputerPartition", {"data": form}),
            ("P-21", "POST", "/v1/installations", {"json": body}),
        )
        assert (removed, ordered) in ((204, 408), (409, 200))
        assert installed in (201, 404)
    with world.session() as session:
        lost = select(func.count()).where(
            SoftwareInstance.node_id.is_not(None),
            ~select(ComputeNode.id).where(ComputeNode.id == SoftwareInstance.node_id).exists(),
        )
        assert session.scalar(lost) == 0


def test_a_release_is_deleted_or_supplied_never_both(world: World) -> None:
    product, manager = product_of(world), world.as_("P-21")
    path = f"/v1/products/{product}/releases"
    for number in range(ROUNDS):
        url = f"https://example.org/{number}.cfg"
        release = manager.post(path, json={"url": url}).get_json()["number"]
        cell = {"product": product, "release": url, "type": "default"}
        body = {"project": "PROJ-1", "title": "x", "cells": [cell]}
        removed, supplied = at_once(
            world,
            ("P-21", "DELETE", f"{path}/{release}", {}),
            ("P-21", "POST", "/v1/supplies", {"json": body}),
        )
        assert (removed, supplied) in ((204, 400), (409, 201))
        with world.session() as session:
            count = session.scalar(select(func.count()).where(SupplyCell.release_id == release))
            assert count == (1 if supplied == 201 else 0)


def test_a_network_is_removed_or_joined_never_both(world: World) -> None:
    manager = world.as_("P-21")
    for number in range(ROUNDS):
        body = {"project": "PROJ-1", "title": f"net {number}"}
        network = manager.post("/v1/networks", json=body).get_json()["reference"]
        statuses = at_once(
            world,
            ("P-21", "DELETE", f"/v1/networks/{network}", {}),
            ("P-21", "PATCH", "/v1/nodes/COMP-1", {"json": {"network": network}}),
        )
        assert statuses in ((204, 404), (409, 200))


def test_one_of_two_titles_is_taken(world: World) -> None:
    body = {"project": "PROJ-1", "title": "same"}
    for path in ("/v1/networks", "/v1/products"):
        asked: list[Asked] = [("P-21", "POST", path, {"json": body})] * 3
        assert sorted(at_once(world, *asked)) == [201, 409, 409], path
