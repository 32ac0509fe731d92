"""The catalogue of a full master over REST: products, supplies, installations, and who may what."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select

from slapos.master.app import create_app
from slapos.master.catalog import service
from slapos.master.catalog.model import SupplyNode
from slapos.master.identity.caller import serve
from slapos.master.settings import Profile, Settings
from slapos.master.tasks.model import TaskMark
from slapos.protocol.errors import InvalidRequest
from slapos.protocol.marshal import loads
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.factories import URL, request_form
from tests.integration.master.full import World, by_header, caller_of_reference

OTHER = "https://example.org/other/software.cfg"
MANAGER = "P-21"


@pytest.fixture
def world(settings: Settings, clock: FakeClock) -> Iterator[World]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    yield World(app)
    app.extensions["slapos"].database.close()


def made(world: World, path: str, wanted: dict[str, Any], who: str = MANAGER) -> dict[str, Any]:
    answer = world.as_(who).post(path, json=wanted)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.get_json()
    return found


@pytest.fixture
def product(world: World) -> str:
    """A published product of PROJ-1 with one release, of the type `default`."""
    reference = made(world, "/v1/products", {"project": "PROJ-1", "title": "web"})["reference"]
    made(world, f"/v1/products/{reference}/releases", {"url": URL, "version": "1"})
    made(world, f"/v1/products/{reference}/types", {"name": "default"})
    answer = world.as_(MANAGER).patch(f"/v1/products/{reference}", json={"state": "published"})
    assert answer.get_json()["state"] == "published"
    return str(reference)


def supply_of(product: str, **fields: Any) -> dict[str, Any]:
    cell = {"product": product, "release": URL, "type": "default"}
    return {"project": "PROJ-1", "title": "here", "nodes": ["COMP-1"], "cells": [cell]} | fields


def sensed(world: World) -> list[str]:
    """Return the keys for which places are looked for, and forget them."""
    with world.session() as session:
        found = session.scalars(select(TaskMark).order_by(TaskMark.id)).all()
        session.execute(delete(TaskMark))
        session.commit()
        return [mark.key for mark in found if mark.name == "allocate_instances"]


def test_an_order_is_placed_by_what_the_catalogue_offers(world: World, product: str) -> None:
    made(world, "/v1/supplies", supply_of(product))
    answer = world.as_("P-11").post("/requestComputerPartition", data=request_form("web"))
    assert answer.status_code == 200
    (installed,) = world.as_("P-11").get("/v1/installations").get_json()["installations"]
    assert (installed["node"], installed["url"]) == ("COMP-1", URL)
    assert installed["requested_state"] == "available"


def test_products_are_shown_to_those_of_the_project(world: World, product: str) -> None:
    (shown,) = world.as_("P-33").get("/v1/products").get_json()["products"]
    assert (shown["reference"], shown["project"], shown["title"]) == (product, "PROJ-1", "web")
    assert (shown["releases"], shown["types"]) == ([URL], ["default"])
    for query in (f"?release={URL}", "?title=WE", "?project=PROJ-1", "?state=published"):
        found = world.as_("P-33").get(f"/v1/products{query}").get_json()["products"]
        assert len(found) == 1, query
    for query in (f"?release={OTHER}", "?title=x", "?project=PROJ-2", "?state=draft"):
        assert world.as_("P-33").get(f"/v1/products{query}").get_json()["products"] == [], query
    assert world.as_("P-22").get("/v1/products").get_json()["products"] == []
    for path in ("", "/releases", "/types"):
        assert world.as_("P-22").get(f"/v1/products/{product}{path}").status_code == 404


def test_only_production_changes_the_catalogue(world: World, product: str) -> None:
    supply = made(world, "/v1/supplies", supply_of(product))["reference"]
    (release,) = world.as_(MANAGER).get(f"/v1/products/{product}/releases").get_json()["releases"]
    asked: list[tuple[str, str, dict[str, Any] | None]] = [
        ("patch", f"/v1/products/{product}", {"title": "x"}),
        ("delete", f"/v1/products/{product}", None),
        ("post", f"/v1/products/{product}/releases", {"url": OTHER}),
        ("patch", f"/v1/products/{product}/releases/{release['number']}", {"version": "2"}),
        ("delete", f"/v1/products/{product}/releases/{release['number']}", None),
        ("post", f"/v1/products/{product}/types", {"name": "x"}),
        ("patch", f"/v1/products/{product}/types/default", {"weight": 2}),
        ("delete", f"/v1/products/{product}/types/default", None),
        ("patch", f"/v1/supplies/{supply}", {"enabled": False}),
        ("delete", f"/v1/supplies/{supply}", None),
        ("post", f"/v1/supplies/{supply}/nodes", {"nodes": []}),
        ("delete", f"/v1/supplies/{supply}/nodes/COMP-1", None),
        ("post", "/v1/installations", {"node": "COMP-1", "url": OTHER}),
        ("post", "/v1/products", {"project": "PROJ-1", "title": "x"}),
        ("post", "/v1/supplies", {"project": "PROJ-1", "title": "x"}),
    ]
    sensed(world)
    for who, status in (("P-11", 403), ("P-22", 404)):
        for method, path, body in asked:
            answer = getattr(world.as_(who), method)(path, json=body)
            assert answer.status_code == status, (who, method, path, answer.text)
    assert sensed(world) == []


def test_releases_come_the_best_first_and_those_of_the_future_last(
    world: World, product: str, clock: FakeClock
) -> None:
    for name, days in (("old", -2), ("soon", 2), ("new", -1), ("later", 3)):
        effective = (clock.now() + timedelta(days=days)).isoformat()
        wanted = {"url": f"https://example.org/{name}.cfg", "effective_at": effective}
        made(world, f"/v1/products/{product}/releases", wanted)
    order = [URL, *(f"https://example.org/{name}.cfg" for name in ("new", "old", "soon", "later"))]
    shown = world.as_("P-11").get(f"/v1/products/{product}/releases").get_json()["releases"]
    assert [release["url"] for release in shown] == order
    with world.session() as session:
        for named in ({"product": product}, {"product": "web"}, {"url": URL}):
            assert service.offered_releases(session, clock, **named) == order
        assert service.offered_releases(session, clock, product="web", project="PROJ-2") == []
        assert service.offered_releases(session, clock, product="unknown") == []
        with pytest.raises(InvalidRequest, match="name either"):
            service.offered_releases(session, clock)
    clock.advance(timedelta(days=2.5).total_seconds())
    shown = world.as_("P-11").get(f"/v1/products/{product}").get_json()
    assert shown["releases"][0] == "https://example.org/soon.cfg"


def test_releases_are_told_over_slap(world: World, product: str) -> None:
    path = "/getSoftwareReleaseListFromSoftwareProduct"
    for query in (f"software_product_reference={product}", f"software_release_url={URL}"):
        for more, found in (("", [URL]), ("&project_reference=PROJ-2", [])):
            answer = world.as_("P-11").get(f"{path}?{query}{more}")
            assert (answer.status_code, loads(answer.data)) == (200, found), (query, more)
        assert loads(world.as_("P-22").get(f"{path}?{query}").data) == []
    assert world.as_("P-11").get(path).status_code == 400


def test_only_published_products_are_offered(world: World, product: str) -> None:
    world.as_(MANAGER).patch(f"/v1/products/{product}", json={"state": "withdrawn"})
    with world.session() as session:
        assert service.offered_releases(session, world.parts.clock, product=product) == []


def test_foreign_products_are_not_offered(world: World, product: str) -> None:
    with world.session() as session:
        serve(session, caller_of_reference(session, "P-22"))
        assert service.offered_releases(session, world.parts.clock, product=product) == []


def test_a_release_is_of_one_product_of_a_project(world: World, product: str) -> None:
    other = made(world, "/v1/products", {"project": "PROJ-1", "title": "x"})["reference"]
    answer = world.as_(MANAGER).post(f"/v1/products/{other}/releases", json={"url": URL})
    assert (answer.status_code, answer.get_json()["error"]) == (409, "conflict")
    assert product in answer.get_json()["message"]
    there = {"project": "PROJ-2", "title": "web"}
    theirs = made(world, "/v1/products", there, "P-22")["reference"]
    made(world, f"/v1/products/{theirs}/releases", {"url": URL}, "P-22")


def test_what_is_said_of_releases_and_types_is_changed(world: World, product: str) -> None:
    manager = world.as_(MANAGER)
    (release,) = manager.get(f"/v1/products/{product}/releases").get_json()["releases"]
    path = f"/v1/products/{product}/releases/{release['number']}"
    wanted = {"version": "1.1", "schema_url": "https://example.org/schema.json"}
    assert manager.patch(path, json=wanted).get_json() == release | wanted
    assert manager.patch(path, json={"url": OTHER}).status_code == 400
    assert manager.patch(path, json={"effective_at": "2026-03-01T12:00:00"}).status_code == 400
    assert manager.patch(f"{path}9", json={"version": "x"}).status_code == 404
    schema = {"type": "object", "properties": {"port": {"type": "integer"}}}
    path = f"/v1/products/{product}/types/default"
    shown = manager.patch(path, json={"weight": 4, "parameter_schema": schema}).get_json()
    assert shown == {"name": "default", "weight": 4, "parameter_schema": schema}
    assert manager.patch(path, json={"parameter_schema": None}).get_json()["weight"] == 4
    answer = manager.patch(path, json={"parameter_schema": {"type": "objekt"}})
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid")
    assert manager.patch(path, json={"weight": -1}).status_code == 400
    again = manager.post(f"/v1/products/{product}/types", json={"name": "default"})
    assert again.status_code == 409


def test_a_product_is_published_and_withdrawn_and_published(world: World, product: str) -> None:
    manager, path = world.as_(MANAGER), f"/v1/products/{product}"
    sensed(world)
    for state in ("withdrawn", "published"):
        assert manager.patch(path, json={"state": state}).get_json()["state"] == state
        assert sensed(world) == ["project:1"]
    assert manager.patch(path, json={"state": "published"}).status_code == 200
    assert sensed(world) == []
    answer = manager.patch(path, json={"state": "draft"})
    assert (answer.status_code, answer.get_json()["error"]) == (409, "conflict")


def test_what_somebody_else_has_changed_is_not_changed_by_mistake(
    world: World, product: str
) -> None:
    manager, path = world.as_(MANAGER), f"/v1/products/{product}"
    tag = {"If-Match": manager.get(path).headers["ETag"]}
    assert manager.patch(path, json={"title": "one"}, headers=tag).status_code == 200
    assert manager.patch(path, json={"title": "two"}, headers=tag).status_code == 412


def test_what_is_in_use_is_not_deleted(world: World, product: str) -> None:
    manager = world.as_(MANAGER)
    supply = made(world, "/v1/supplies", supply_of(product))["reference"]
    installed = made(world, "/v1/installations", {"node": "COMP-1", "url": URL})["reference"]
    number = manager.get(f"/v1/products/{product}/releases").get_json()["releases"][0]["number"]
    paths = [
        f"/v1/products/{product}",
        f"/v1/products/{product}/releases/{number}",
        f"/v1/products/{product}/types/default",
    ]
    assert "withdraw it first" in manager.delete(paths[0]).get_json()["message"]
    manager.patch(paths[0], json={"state": "withdrawn"})
    for path in paths:
        answer = manager.delete(path)
        assert (answer.status_code, answer.get_json()["error"]) == (409, "conflict"), path
        assert supply in answer.get_json()["message"]
    manager.delete(f"/v1/supplies/{supply}")
    for path in paths[:2]:
        answer = manager.delete(path)
        assert answer.status_code == 409, path
        assert "COMP-1" in answer.get_json()["message"]
    with world.session() as session:
        session.delete(service.find_installation(session, installed))
        session.commit()
    assert [manager.delete(path).status_code for path in reversed(paths)] == [204, 204, 204]


def test_supplies_are_shown_to_those_they_are_for(world: World, product: str) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "all": {},
        "private": {"customer": "P-33"},
        "disabled": {"enabled": False},
        "disabled private": {"customer": "P-33", "enabled": False},
    }
    references = {
        name: made(world, "/v1/supplies", supply_of(product, title=name, **fields))["reference"]
        for name, fields in kinds.items()
    }
    seen = {
        MANAGER: set(references),
        "P-33": {"all", "private"},
        "P-11": {"all"},
        "P-22": set(),
        "P-12": set(),
        "COMP-1": set(),
    }
    for who, titles in seen.items():
        listed = world.as_(who).get("/v1/supplies").get_json()["supplies"]
        assert {supply["title"] for supply in listed} == titles, who
        for title, reference in references.items():
            status = 200 if title in titles else 404
            for path in ("", "/nodes"):
                answer = world.as_(who).get(f"/v1/supplies/{reference}{path}")
                assert answer.status_code == status, (who, title)


def test_what_a_supply_is_is_changed(world: World, product: str) -> None:
    manager = world.as_(MANAGER)
    supply = made(world, "/v1/supplies", supply_of(product))
    path = f"/v1/supplies/{supply['reference']}"
    sensed(world)
    assert manager.patch(path, json={"title": "there"}).get_json()["title"] == "there"
    assert sensed(world) == []
    wanted = {"shared_in_same_tree": True, "installs_by_need": False, "customer": "P-11"}
    shown = manager.patch(path, json=wanted).get_json()
    assert {name: shown[name] for name in wanted} == wanted
    assert shown["cells"] == supply["cells"]
    assert sensed(world) == ["project:1"]
    assert manager.patch(path, json={"cells": []}).get_json()["cells"] == []
    assert manager.patch(path, json={"customer": None}).get_json()["customer"] is None
    assert manager.patch(path, json={"nodes": []}).status_code == 200
    assert manager.get(f"{path}/nodes").get_json()["nodes"] == []
    tag = {"If-Match": '"old"'}
    assert manager.patch(path, json={"title": "x"}, headers=tag).status_code == 412


def test_nodes_come_to_a_supply_and_leave_it(world: World, product: str) -> None:
    manager = world.as_(MANAGER)
    path = f"/v1/supplies/{made(world, '/v1/supplies', supply_of(product))['reference']}"
    assert manager.post(f"{path}/nodes", json={"nodes": ["COMP-1"]}).get_json() == {"added": 0}
    sensed(world)
    assert manager.delete(f"{path}/nodes/COMP-1").status_code == 204
    assert manager.delete(f"{path}/nodes/COMP-1").status_code == 204
    assert sensed(world) == []
    assert manager.post(f"{path}/nodes", json={"nodes": ["COMP-1"]}).get_json() == {"added": 1}
    assert sensed(world) == ["project:1"]
    (node,) = world.as_("P-11").get(f"{path}/nodes").get_json()["nodes"]
    assert node == {"reference": "COMP-1", "title": "node 1", "allocation_scope": "open"}
    world.as_(MANAGER).delete("/v1/nodes/COMP-1")
    with world.session() as session:
        assert session.scalars(select(SupplyNode)).all() == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"nodes": ["COMP-2"]},
        {"nodes": ["COMP-9"]},
        {"customer": "P-12"},
        {"customer": "P-21"},
        {"cells": [{"product": "PROD-1", "release": URL, "type": "default"}]},
        {"cells": [{"release": URL, "type": "default"}]},
        {"cells": [{"product": None, "release": OTHER, "type": "default"}]},
    ],
)
def test_a_supply_has_only_what_its_project_has(
    world: World, product: str, wanted: dict[str, Any]
) -> None:
    answer = world.as_(MANAGER).post("/v1/supplies", json=supply_of(product, **wanted))
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid"), answer.text


def test_a_release_is_installed_and_given_up_by_order(world: World) -> None:
    manager = world.as_(MANAGER)
    shown = made(world, "/v1/installations", {"node": "COMP-1", "url": OTHER})
    assert sensed(world) == ["node:1"]
    again = made(world, "/v1/installations", {"node": "COMP-1", "url": OTHER})
    assert again == shown
    path = f"/v1/installations/{shown['reference']}"
    assert world.as_("P-11").get(path).get_json() == shown
    assert world.as_("COMP-1").get(path).get_json() == shown
    for who in ("P-22", "COMP-2"):
        assert world.as_(who).get(path).status_code == 404
        assert world.as_(who).delete(path).status_code == 404
        assert world.as_(who).get("/v1/installations").get_json()["installations"] == []
    for who in ("P-11", "COMP-1"):
        assert world.as_(who).delete(path).status_code == 403
    for query in (f"?url={OTHER}", "?node=COMP-1", "?project=PROJ-1"):
        found = manager.get(f"/v1/installations{query}").get_json()["installations"]
        assert found == [shown], query
    assert manager.get("/v1/installations?node=COMP-2").get_json()["installations"] == []
    assert manager.delete(path).status_code == 204
    assert manager.get(path).get_json()["requested_state"] == "destroyed"
    gone = {"url": OTHER, "computer_id": "COMP-1"}
    assert world.as_("COMP-2").post("/destroyedSoftwareRelease", data=gone).status_code == 404
    assert world.as_("P-11").post("/destroyedSoftwareRelease", data=gone).status_code == 403
    assert world.as_("COMP-1").post("/destroyedSoftwareRelease", data=gone).status_code == 200
    assert manager.get(path).status_code == 404
    for name in ("SOFTINSTALL-x", "SOFTINSTALL-99999999999", "1", "SOFTINSTALL-²"):
        assert manager.get(f"/v1/installations/{name}").status_code == 404


def test_a_release_that_an_instance_uses_stays(world: World, product: str) -> None:
    made(world, "/v1/supplies", supply_of(product))
    world.as_("P-11").post("/requestComputerPartition", data=request_form("web"))
    (installed,) = world.as_(MANAGER).get("/v1/installations").get_json()["installations"]
    answer = world.as_(MANAGER).delete(f"/v1/installations/{installed['reference']}")
    assert (answer.status_code, answer.get_json()["error"]) == (409, "conflict")
    form = {"url": URL, "computer_id": "COMP-1", "state": "destroyed"}
    assert world.as_(MANAGER).post("/supplySupply", data=form).status_code == 409
