"""What becomes of releases that nothing uses, and of supplies that name what is gone."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import delete, select

from slapos.master.app import create_app
from slapos.master.catalog import products, service, supplies
from slapos.master.catalog.model import (
    AllocationSupply,
    ProductState,
    SoftwareInstallation,
    SupplyNode,
)
from slapos.master.catalog.tasks import remove_unused_installations, tidy_supplies
from slapos.master.catalog.upkeep import GRACE, give_up_unused
from slapos.master.identity.model import Membership
from slapos.master.nodes import operate
from slapos.master.nodes.model import AllocationScope
from slapos.master.settings import Profile, Settings
from slapos.master.tasks.registry import tasks_of
from slapos.master.tasks.task import Done, Turn
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.factories import URL, request_form
from tests.integration.master.full import World, by_header

OTHER = "https://example.org/other/software.cfg"


@pytest.fixture
def world(settings: Settings, clock: FakeClock) -> Iterator[World]:
    """A full master whose customers may have the release URL on COMP-1."""
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    world = World(app)
    with world.session() as session:
        product = products.create(session, clock, project="PROJ-1", title="web").reference
        products.add_release(session, clock, product, url=URL)
        products.add_type(session, product, name="default")
        products.change(session, product, {"state": ProductState.PUBLISHED})
        cells = [supplies.Cell(product=product, release=URL, type="default")]
        wanted: supplies.SupplyChange = {"nodes": ["COMP-1"], "cells": cells}
        supplies.create(session, clock, project="PROJ-1", title="here", wanted=wanted)
        session.commit()
    yield world
    app.extensions["slapos"].database.close()


def run(world: World, work: Callable[[Turn], Done]) -> Done:
    parts = world.parts
    with world.session() as session:
        turn = Turn(
            session=session,
            clock=parts.clock,
            identifiers=parts.identifiers,
            settings=parts.settings,
            policy=parts.policy,
        )
        done = work(turn)
        session.commit()
        return done


def installed(world: World) -> dict[str, str]:
    with world.session() as session:
        found = session.scalars(select(SoftwareInstallation)).all()
        return {each.url: each.requested_state for each in found}


def install(world: World, *urls: str) -> None:
    with world.session() as session:
        for url in urls:
            service.supply(session, world.parts.clock, node="COMP-1", url=url, state="available")
        session.commit()


def change_supply(world: World, **wanted: bool) -> None:
    with world.session() as session:
        for supply in session.scalars(select(AllocationSupply)):
            supply.enabled = wanted["enabled"]
        session.commit()


def test_what_nothing_uses_is_removed_after_a_day(world: World, clock: FakeClock) -> None:
    install(world, URL, OTHER)
    assert run(world, remove_unused_installations).count == 0
    clock.advance(GRACE.total_seconds() + 1)
    assert run(world, remove_unused_installations).count == 1
    assert installed(world) == {URL: "available", OTHER: "destroyed"}
    change_supply(world, enabled=False)
    assert run(world, remove_unused_installations).count == 1
    assert installed(world) == {URL: "destroyed", OTHER: "destroyed"}
    assert run(world, remove_unused_installations).count == 0


def test_it_goes_on_piece_by_piece(world: World, clock: FakeClock) -> None:
    install(world, *(f"https://example.org/{number}.cfg" for number in range(5)))
    clock.advance(GRACE.total_seconds() + 1)
    with world.session() as session:
        after: int | None = 0
        counts = []
        while after is not None:
            count, after = give_up_unused(session, clock.now(), after, 2)
            counts.append(count)
        assert counts == [2, 2, 1, 0]


def test_what_an_instance_uses_stays(world: World, clock: FakeClock) -> None:
    answer = world.as_("P-11").post("/requestComputerPartition", data=request_form("web"))
    assert answer.status_code == 200
    change_supply(world, enabled=False)
    clock.advance(GRACE.total_seconds() + 1)
    assert run(world, remove_unused_installations).count == 0
    assert installed(world) == {URL: "available"}


def test_what_came_into_use_meanwhile_is_wanted_again(world: World, clock: FakeClock) -> None:
    assert (
        world.as_("P-11").post("/requestComputerPartition", data=request_form("web")).status_code
        == 200
    )
    with world.session() as session:
        (found,) = session.scalars(select(SoftwareInstallation))
        found.requested_state = "destroyed"
        session.commit()
    assert run(world, remove_unused_installations).count == 1
    assert installed(world) == {URL: "available"}


def test_a_node_that_is_gone_is_in_no_supply(world: World, clock: FakeClock) -> None:
    install(world, URL)
    with world.session() as session:
        operate.change(session, "COMP-1", {"allocation_scope": AllocationScope.FOREVER})
        assert operate.invalidate_if_empty(session, "COMP-1", clock.now())
        session.commit()
    assert run(world, tidy_supplies).count == 2
    assert installed(world) == {}
    with world.session() as session:
        assert session.scalars(select(SupplyNode)).all() == []
    assert run(world, tidy_supplies).count == 0


def test_a_supply_for_nobody_is_disabled(world: World, clock: FakeClock) -> None:
    with world.session() as session:
        wanted: supplies.SupplyChange = {"customer": "P-33"}
        supplies.create(session, clock, project="PROJ-1", title="private", wanted=wanted)
        session.commit()
    assert run(world, tidy_supplies).count == 0
    with world.session() as session:
        session.execute(delete(Membership).where(Membership.person_id == 33))
        session.commit()
    assert run(world, tidy_supplies).count == 1
    with world.session() as session:
        found = session.scalars(select(AllocationSupply).order_by(AllocationSupply.id)).all()
        assert [supply.enabled for supply in found] == [True, False]


def test_a_local_master_removes_nothing_by_itself() -> None:
    assert "remove_unused_installations" in tasks_of(Profile.FULL)
    assert "remove_unused_installations" not in tasks_of(Profile.LOCAL)
