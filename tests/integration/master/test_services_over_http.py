"""Services, instances and instance nodes of the full profile over REST: who may what."""

from collections.abc import Iterator
from typing import Any

import pytest

from slapos.master.app import create_app
from slapos.master.identity.caller import Role
from slapos.master.settings import Profile, Settings
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.catalogue import add_product, add_supply
from tests.integration.master.factories import URL, request_form
from tests.integration.master.full import World, by_header

TREES = "/v1/instance-trees"


@pytest.fixture
def world(settings: Settings, clock: FakeClock) -> Iterator[World]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    world = World(app)
    with world.session() as session:
        for project in (1, 2):
            product = add_product(session, project_id=project)
            supply = [f"COMP-{project}"]
            add_supply(session, product, supply, shared_in_same_tree=True)
        world.person(session, 41, (1, Role.SUPPORT))
        session.commit()
    yield world
    app.extensions["slapos"].database.close()


def order(world: World, who: str = "P-11", title: str = "web", **fields: Any) -> dict[str, Any]:
    body = {"project": "PROJ-1", "title": title, "software_url": URL, **fields}
    answer = world.as_(who).post(TREES, json=body)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.get_json()
    assert answer.headers["Location"].endswith(f"{TREES}/{told['reference']}")
    return told


def titles(world: World, who: str, query: str = "") -> list[str]:
    answer = world.as_(who).get(f"{TREES}{query}")
    assert answer.status_code == 200, answer.text
    return [tree["title"] for tree in answer.get_json()["instance_trees"]]


def test_an_ordered_service_has_its_place_at_once(world: World) -> None:
    told = order(world, parameters={"secret": "s"})
    assert told["reference"].startswith("HOSTSUBS-")
    assert (told["project"], told["owner"]) == ("PROJ-1", "P-11")
    (root,) = told["instances"]
    assert (root["node"], root["partition"]) == ("COMP-1", "slappart0")
    assert root["parameters"] == {"secret": "s"}
    for key in (told["reference"], "web"):
        assert world.as_("P-11").get(f"{TREES}/{key}").get_json() == told


def test_an_order_that_waits_says_why(world: World) -> None:
    told = order(world, filters={"region": "mars"})
    (root,) = told["instances"]
    assert (root["phase"], root["reason"]) == ("allocating", "no_node_matches")
    assert "region 'mars'" in root["message"]
    found = world.as_("P-11").get("/v1/instances?waits=true").get_json()["instances"]
    assert [each["guid"] for each in found] == [root["guid"]]
    assert found[0]["filters"] == {"region": "mars"}


def test_the_same_title_twice_is_refused(world: World) -> None:
    order(world)
    body = {"project": "PROJ-1", "title": "web", "software_url": URL}
    answer = world.as_("P-11").post(TREES, json=body)
    assert (answer.status_code, answer.get_json()["error"]) == (409, "conflict")
    order(world, who="P-33")


@pytest.mark.parametrize(
    ("who", "status"),
    [("P-12", 404), ("P-41", 403), ("COMP-1", 403)],
)
def test_only_customers_of_a_project_order_in_it(world: World, who: str, status: int) -> None:
    body = {"project": "PROJ-1", "title": "web", "software_url": URL}
    answer = world.as_(who).post(TREES, json=body)
    assert answer.status_code in (status, 404), answer.text


def test_each_sees_what_is_hers_or_of_her_project(world: World) -> None:
    reference = order(world)["reference"]
    order(world, who="P-33", title="other")
    assert titles(world, "P-11") == ["web"]
    assert titles(world, "P-33") == ["other"]
    assert titles(world, "P-12") == titles(world, "P-22") == []
    assert titles(world, "P-21") == ["web", "other"]
    assert titles(world, "P-21", "?owner=P-33") == ["other"]
    assert titles(world, "P-21", "?title=web&project=PROJ-1") == ["web"]
    assert titles(world, "P-21", "?project=PROJ-2") == []
    assert titles(world, "P-21", "?limit=1") == ["web"]
    for who in ("P-12", "P-33", "COMP-2"):
        assert world.as_(who).get(f"{TREES}/{reference}").status_code == 404


def test_support_sees_no_values(world: World) -> None:
    reference = order(world, parameters={"secret": "s"})["reference"]
    (root,) = world.as_("P-41").get(f"{TREES}/{reference}").get_json()["instances"]
    assert root["parameters"] == {}
    shown = world.as_("P-41").get(f"/v1/instances/{root['guid']}").get_json()
    assert shown["parameters"] == {}
    assert shown["tree"] == reference


def test_a_service_is_changed_stopped_renamed_and_destroyed(world: World) -> None:
    customer = world.as_("P-11")
    told = order(world)
    path, guid = f"{TREES}/{told['reference']}", told["instances"][0]["guid"]
    changes: list[tuple[dict[str, Any], str, Any]] = [
        ({"parameters": {"a": "b"}}, "parameters", {"a": "b"}),
        ({"state": "stopped"}, "requested_state", "stopped"),
        ({"title": "new"}, "title", "new"),
    ]
    for body, field, value in changes:
        assert customer.patch(path, json=body).status_code == 204
        assert customer.get(f"/v1/instances/{guid}").get_json()[field] == value
    assert customer.post(f"/v1/instances/{guid}/start").status_code == 204
    assert customer.post(f"/v1/instances/{guid}/bang").status_code == 204
    shown = customer.get(f"/v1/instances/{guid}").get_json()
    assert (shown["requested_state"], shown["parameters"]) == ("started", {"a": "b"})
    assert customer.delete(path).status_code == 204
    assert customer.get(f"/v1/instances/{guid}").get_json()["phase"] == "destroying"
    assert customer.delete(path).status_code == 204
    answer = customer.post(f"/v1/instances/{guid}/start")
    assert (answer.status_code, answer.get_json()["error"]) == (409, "conflict")
    assert customer.patch(path, json={"software_url": "x"}).status_code == 400


@pytest.mark.parametrize("who", ["P-12", "P-33", "COMP-2"])
def test_who_may_not_see_it_finds_nothing_to_change(world: World, who: str) -> None:
    told = order(world)
    path, guid = f"{TREES}/{told['reference']}", told["instances"][0]["guid"]
    client = world.as_(who)
    for answer in (
        client.patch(path, json={"state": "stopped"}),
        client.delete(path),
        client.get(f"/v1/instances/{guid}"),
        client.patch(f"/v1/instances/{guid}", json={"title": "x"}),
        client.post(f"/v1/instances/{guid}/destroy"),
        client.post(f"/v1/instances/{guid}/bang"),
    ):
        assert answer.status_code == 404
    assert world.as_("P-41").post(f"/v1/instances/{guid}/stop").status_code == 403
    assert world.as_("P-41").delete(path).status_code == 403


def test_a_child_is_stopped_but_not_started_below_a_stopped_one(world: World) -> None:
    root = order(world)["instances"][0]["guid"]
    assert (
        world.as_(root).post("/requestComputerPartition", data=request_form("db")).status_code
        == 200
    )
    listed = world.as_("P-11").get("/v1/instances").get_json()["instances"]
    (child,) = [each["guid"] for each in listed if each["parent"] == root]
    customer = world.as_("P-11")
    assert customer.post(f"/v1/instances/{child}/stop").status_code == 204
    customer.post(f"/v1/instances/{root}/stop")
    answer = customer.post(f"/v1/instances/{child}/start")
    assert answer.status_code == 409
    assert "start that one first" in answer.get_json()["message"]


def test_a_manager_has_an_instance_host_shared_ones(world: World) -> None:
    host = order(world)["instances"][0]["guid"]
    shared = order(world, who="P-33", title="slot", shared=True)["instances"][0]
    assert shared["reason"] == "no_host"
    body = {"title": "front", "instance": host}
    assert world.as_("P-11").post("/v1/instance-nodes", json=body).status_code == 403
    assert world.as_("P-22").post("/v1/instance-nodes", json=body).status_code == 404
    made = world.as_("P-21").post("/v1/instance-nodes", json=body)
    assert made.status_code == 201, made.text
    path = made.headers["Location"]
    assert made.get_json()["instance"] == host
    assert world.as_("P-21").post("/v1/instance-nodes", json=body).status_code == 409
    other = order(world, title="slot", shared=True)["instances"][0]
    assert other["partition"] == "slappart0"
    listed = world.as_("P-33").get("/v1/instance-nodes").get_json()["instance_nodes"]
    assert [each["title"] for each in listed] == ["front"]
    assert world.as_("P-12").get("/v1/instance-nodes").get_json()["instance_nodes"] == []
    assert world.as_("P-12").get(path).status_code == 404
    assert world.as_("P-11").delete(path).status_code == 403
    assert world.as_("P-21").delete(path).status_code == 204
    again = world.as_("P-11").get(f"/v1/instances/{other['guid']}").get_json()
    assert again["partition"] == "slappart0"


def test_a_node_shows_only_the_instances_that_one_may_see(world: World) -> None:
    order(world)
    partitions = world.as_("P-33").get("/v1/nodes/COMP-1").get_json()["partitions"]
    assert [each["instance"] for each in partitions] == [None] * 3
    assert partitions[0]["state"] == "busy"
    partitions = world.as_("P-11").get("/v1/nodes/COMP-1").get_json()["partitions"]
    assert partitions[0]["instance"]["title"] == "web"
