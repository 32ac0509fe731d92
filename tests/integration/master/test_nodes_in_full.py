"""Nodes and networks of a full master over REST: who sees, changes and removes them."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select

from slapos.master.app import create_app
from slapos.master.certificates.model import CertificateAuthority, IssuedCertificate
from slapos.master.nodes import operate, service
from slapos.master.nodes.model import AllocationScope
from slapos.master.nodes.tasks import TASKS
from slapos.master.settings import Profile, Settings
from slapos.master.tasks.model import TaskMark
from slapos.master.tasks.task import Turn
from slapos.protocol.marshal import dumps
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.factories import format_form, request_form
from tests.integration.master.full import World, by_header

INVALIDATE = next(task for task in TASKS if task.name == service.INVALIDATE_CLOSED_NODES)


@pytest.fixture
def world(settings: Settings, clock: FakeClock) -> Iterator[World]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    yield World(app)
    app.extensions["slapos"].database.close()


def references(world: World, who: str, query: str = "") -> list[str]:
    answer = world.as_(who).get(f"/v1/nodes{query}")
    assert answer.status_code == 200, answer.text
    return [node["reference"] for node in answer.get_json()["nodes"]]


def sensed(world: World) -> list[tuple[str, str]]:
    with world.session() as session:
        return [(mark.name, mark.key) for mark in session.scalars(select(TaskMark))]


def invalidate(world: World, *keys: str) -> int:
    parts = world.parts
    with world.session() as session:
        turn = Turn(
            session=session,
            clock=parts.clock,
            identifiers=parts.identifiers,
            settings=parts.settings,
            policy=parts.policy,
            keys=keys or None,
        )
        count = INVALIDATE.run(turn).count
        session.commit()
        return count


def test_each_sees_the_nodes_of_his_projects(world: World) -> None:
    assert references(world, "P-11") == references(world, "P-21") == ["COMP-1"]
    assert references(world, "P-33") == ["COMP-1", "COMP-2"]
    assert references(world, "COMP-2") == ["COMP-2"]
    answer = world.as_("P-11").get("/v1/nodes/COMP-2/partitions")
    assert (answer.status_code, answer.get_json()["error"]) == (404, "not_found")
    assert "COMP-1" not in answer.get_json()["message"]


def test_nodes_are_looked_for_by_what_they_are_like(world: World) -> None:
    manager = world.as_("P-21")
    network = manager.post("/v1/networks", json={"project": "PROJ-1", "title": "rack"}).get_json()
    wanted = {
        "title": "Rack 1",
        "allocation_scope": "close/maintenance",
        "capacity": 7,
        "network": network["reference"],
        "categories": {"region": "eu", "cpu_core": "8"},
    }
    shown = manager.patch("/v1/nodes/COMP-1", json=wanted).get_json()
    assert {name: shown[name] for name in wanted} == wanted
    for query in (
        "?title=rack",
        "?scope=close/maintenance",
        "?project=PROJ-1",
        f"?network={network['reference']}",
        "?category=region=eu&category=cpu_core=8",
    ):
        assert references(world, "P-33", query) == ["COMP-1"], query
    for query in ("?title=%25", "?scope=open&project=PROJ-1", "?category=region=asia"):
        assert references(world, "P-33", query) == [], query
    answer = manager.get("/v1/nodes?category=colour=red")
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid")
    assert manager.get("/v1/nodes?category=region").status_code == 400


def test_categories_are_replaced_and_what_is_left_out_stays(world: World) -> None:
    manager = world.as_("P-21")
    first = {"categories": {"region": "eu", "group": "a"}, "capacity": 3}
    manager.patch("/v1/nodes/COMP-1", json=first)
    second = {"categories": {"region": "asia"}}
    shown = manager.patch("/v1/nodes/COMP-1", json=second).get_json()
    assert (shown["categories"], shown["capacity"]) == ({"region": "asia"}, 3)
    assert shown["title"] == "node 1"
    third = manager.patch("/v1/nodes/COMP-1", json={"capacity": None, "network": None}).get_json()
    assert (third["categories"], third["capacity"]) == ({"region": "asia"}, None)


@pytest.mark.parametrize(
    "wanted",
    [
        {"allocation_scope": "ajar"},
        {"capacity": -1},
        {"capacity": 2**31},
        {"categories": {"colour": "red"}},
        {"categories": {"region": ""}},
        {"title": ""},
        {"title": None},
        {"os_type": "mine"},
        {"reference": "COMP-9"},
    ],
)
def test_nonsense_is_refused(world: World, wanted: dict[str, object]) -> None:
    answer = world.as_("P-21").patch("/v1/nodes/COMP-1", json=wanted)
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid")


def test_only_production_changes_a_node(world: World) -> None:
    wanted = {"allocation_scope": "close/noallocation"}
    for who, status in (("P-11", 403), ("COMP-1", 403), ("P-22", 404), ("COMP-2", 404)):
        assert world.as_(who).patch("/v1/nodes/COMP-1", json=wanted).status_code == status, who
        assert world.as_(who).delete("/v1/nodes/COMP-1").status_code == status, who
    assert sensed(world) == []


def test_a_network_of_another_project_is_refused(world: World) -> None:
    other = world.as_("P-22").post("/v1/networks", json={"project": "PROJ-2", "title": "there"})
    wanted = {"network": other.get_json()["reference"]}
    assert world.as_("P-21").patch("/v1/nodes/COMP-1", json=wanted).status_code == 404
    with world.session() as session, pytest.raises(Exception, match="of another project"):
        operate.change(session, "COMP-1", {"network": wanted["network"]})


def test_two_nodes_of_a_project_have_two_titles(world: World) -> None:
    with world.session() as session:
        made = service.create(session, world.parts.clock, 1, "second").reference
        session.commit()
    answer = world.as_("P-21").patch(f"/v1/nodes/{made}", json={"title": "node 1"})
    assert (answer.status_code, answer.get_json()["error"]) == (409, "conflict")
    assert "COMP-1" in answer.get_json()["message"]
    assert world.as_("P-21").patch(f"/v1/nodes/{made}", json={"title": "node 2"}).status_code == 200


def test_what_lets_an_instance_find_a_place_is_sensed(world: World) -> None:
    manager = world.as_("P-21")
    manager.patch("/v1/nodes/COMP-1", json={"title": "other"})
    manager.patch("/v1/nodes/COMP-1", json={"allocation_scope": "close/outdated"})
    assert sensed(world) == []
    manager.patch("/v1/nodes/COMP-1", json={"allocation_scope": "open"})
    assert sensed(world) == [("allocate_instances", "node:1")]


def test_a_node_that_holds_an_instance_stays(world: World) -> None:
    world.as_("P-11").post("/requestComputerPartition", data=request_form("web"))
    world.place("web", "COMP-1", "slappart0")
    answer = world.as_("P-21").delete("/v1/nodes/COMP-1")
    assert (answer.status_code, answer.get_json()["error"]) == (409, "conflict")
    assert "holds 1 instances" in answer.get_json()["message"]
    assert world.as_("P-22").delete("/v1/nodes/COMP-2").status_code == 204
    assert references(world, "P-33") == ["COMP-1"]


def test_a_node_closed_for_ever_goes_once_it_is_empty(world: World) -> None:
    world.as_("P-11").post("/requestComputerPartition", data=request_form("web"))
    world.place("web", "COMP-1", "slappart0")
    wanted = {"allocation_scope": "close/forever"}
    assert world.as_("P-21").patch("/v1/nodes/COMP-1", json=wanted).status_code == 200
    assert sensed(world)[-1] == ("invalidate_closed_nodes", "COMP-1")
    assert invalidate(world, "COMP-1") == 0
    with world.session() as session:
        service.free_partition(session, service.find_partition(session, "COMP-1", "slappart0"))
        session.commit()
    assert sensed(world)[-1] == ("invalidate_closed_nodes", "COMP-1")
    assert invalidate(world) == 1
    assert invalidate(world) == invalidate(world, "COMP-1", "COMP-2", "COMP-9") == 0
    assert references(world, "P-21") == []
    assert references(world, "P-21", "?invalidated=true") == ["COMP-1"]
    answer = world.as_("P-21").patch("/v1/nodes/COMP-1", json={"allocation_scope": "open"})
    assert (answer.status_code, answer.get_json()["error"]) == (409, "conflict")
    with world.session() as session:
        service.create(session, world.parts.clock, 1, "node 1")


def test_a_node_that_goes_loses_its_certificates(world: World) -> None:
    now = world.parts.clock.now()
    with world.session() as session:
        authority = CertificateAuthority(
            state="trusted",
            fingerprint="f",
            certificate="",
            sealed_key="",
            created_at=now,
            signs_from=now,
            not_after=now + timedelta(days=1),
        )
        session.add(authority)
        session.flush()
        for node in ("COMP-1", "COMP-2"):
            held = IssuedCertificate(
                serial=node,
                authority_id=authority.id,
                kind="node",
                node_id=service.find_node(session, node).id,
                issued_at=now,
                not_after=now + timedelta(days=1),
            )
            session.add(held)
        operate.change(session, "COMP-1", {"allocation_scope": AllocationScope.FOREVER})
        session.commit()
    assert invalidate(world) == 1
    with world.session() as session:
        found = session.scalars(select(IssuedCertificate).order_by(IssuedCertificate.serial)).all()
        assert [each.revoked_at for each in found] == [now, None]


def test_what_others_have_on_a_node_is_not_shown(world: World) -> None:
    for who, title in (("P-11", "mine"), ("P-33", "theirs")):
        form = request_form(title, project_reference="PROJ-1")
        world.as_(who).post("/requestComputerPartition", data=form)
    world.place("mine", "COMP-1", "slappart0")
    reference = world.place("theirs", "COMP-1", "slappart1")
    seen = {"P-11": ["mine"], "P-33": ["theirs"], reference: ["theirs"]}
    seen |= {each: ["mine", "theirs"] for each in ("P-21", "COMP-1")}
    for who, titles in seen.items():
        shown = world.as_(who).get("/v1/nodes/COMP-1").get_json()
        held = [each["instance"] for each in shown["partitions"] if each["instance"]]
        assert [each["title"] for each in held] == titles, who


def told(node: str) -> dict[str, str]:
    document = {
        "reference": node,
        "os_type": '["Linux", "debian"]',
        "public_ipv4_address": "192.0.2.1",
        "slapos_version": "2.0",
        "partition_list": [{"reference": "slappart0", "address_list": []}],
    }
    return {"xml": dumps(document).decode()}


def test_only_a_node_itself_says_what_it_is(world: World) -> None:
    path = "/loadComputerConfigurationFromXML"
    for who, status in (("P-11", 403), ("P-21", 403), ("COMP-2", 404)):
        assert world.as_(who).post(path, data=told("COMP-1")).status_code == status, who
    assert world.as_("COMP-1").post(path, data=told("COMP-9")).status_code == 404
    assert world.as_("COMP-1").post(path, data=told("COMP-1")).status_code == 200
    (shown,) = world.as_("P-11").get("/v1/nodes").get_json()["nodes"]
    assert shown["os_type"] == '["Linux", "debian"]'
    assert (shown["public_address"], shown["slapos_version"]) == ("192.0.2.1", "2.0")


def test_a_node_that_has_more_partitions_has_places(world: World) -> None:
    path = "/loadComputerConfigurationFromXML"
    world.as_("COMP-1").post(path, data=format_form(3, "COMP-1"))
    assert sensed(world) == []
    world.as_("COMP-1").post(path, data=format_form(4, "COMP-1"))
    assert sensed(world) == [("allocate_instances", "node:1")]


def test_networks_are_made_named_and_removed(world: World) -> None:
    manager = world.as_("P-21")
    made = manager.post("/v1/networks", json={"project": "PROJ-1", "title": "rack"})
    assert made.status_code == 201
    path = made.headers["Location"]
    again = manager.post("/v1/networks", json={"project": "PROJ-1", "title": "rack"})
    assert (again.status_code, again.get_json()["error"]) == (409, "conflict")
    assert manager.patch(path, json={"title": "row"}).get_json()["title"] == "row"
    answer = manager.patch(path, json={"title": "x"}, headers={"If-Match": '"old"'})
    assert answer.status_code == 412
    listed = world.as_("P-33").get("/v1/networks?project=PROJ-1").get_json()["networks"]
    assert [each["title"] for each in listed] == ["row"]
    manager.patch("/v1/nodes/COMP-1", json={"network": made.get_json()["reference"]})
    assert manager.delete(path).status_code == 409
    manager.patch("/v1/nodes/COMP-1", json={"network": None})
    assert manager.delete(path).status_code == 204
    assert manager.get(path).status_code == 404


def test_only_production_makes_networks(world: World) -> None:
    wanted = {"project": "PROJ-1", "title": "rack"}
    for who, status in (("P-11", 403), ("COMP-1", 404), ("P-22", 404)):
        assert world.as_(who).post("/v1/networks", json=wanted).status_code == status, who
    made = world.as_("P-21").post("/v1/networks", json=wanted).headers["Location"]
    for who, status in (("P-11", 403), ("P-22", 404)):
        assert world.as_(who).patch(made, json={"title": "x"}).status_code == status, who
        assert world.as_(who).delete(made).status_code == status, who
    assert world.as_("P-22").get(made).status_code == 404
