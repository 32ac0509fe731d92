"""The SLAP calls of a full master: who may ask what, and what others are told."""

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from slapos.master.app import create_app
from slapos.master.provisioning.model import InstanceTree
from slapos.master.settings import Profile, Settings
from slapos.protocol.marshal import Marshalled, dumps, loads
from slapos.protocol.messages import NodeInformation
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.factories import request_form
from tests.integration.master.full import World, by_header

REQUEST = "/requestComputerPartition"


@pytest.fixture
def world(database_uri: str, settings: Settings, clock: FakeClock) -> Iterator[World]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    yield World(app)
    app.extensions["slapos"].database.close()


def order(client: FlaskClient, title: str, **fields: object) -> TestResponse:
    return client.post(REQUEST, data=request_form(title, **fields))


@pytest.fixture
def web(world: World) -> str:
    """An instance `web` of P-11 on COMP-1."""
    order(world.as_("P-11"), "web")
    return world.place("web", "COMP-1", "slappart0")


@pytest.fixture
def foreign(world: World) -> str:
    """An instance `foreign` of P-12 on COMP-2."""
    order(world.as_("P-12"), "foreign")
    return world.place("foreign", "COMP-2", "slappart0")


def projects_of_trees(world: World) -> dict[str, int]:
    with world.session() as session:
        return {tree.title: tree.project_id for tree in session.scalars(select(InstanceTree))}


def told(response: TestResponse) -> NodeInformation:
    assert response.status_code == 200, response.text
    document = loads(response.data)
    assert isinstance(document, Marshalled)
    return NodeInformation.from_marshalled(document)


def test_nobody_is_answered_without_saying_who_it_is(world: World) -> None:
    client = world.app.test_client()
    assert order(client, "web").status_code == 401
    assert client.get("/getFullComputerInformation?computer_id=COMP-1").status_code == 401
    header = {"Authorization": "X-SlapPartition computer_id=COMP-1,computer_partition_id=slappart0"}
    response = client.post(REQUEST, data=request_form("web"), headers=header)
    assert response.status_code == 401


def test_an_order_waits_for_its_place_and_is_told_why(world: World) -> None:
    response = order(world.as_("P-11"), "web")
    assert response.status_code == 408
    assert "waits" in response.text
    reference = world.place("web", "COMP-1", "slappart0")
    response = order(world.as_("P-11"), "web")
    assert response.status_code == 200
    document = loads(response.data)
    assert isinstance(document, Marshalled)
    assert document.state["_instance_guid"] == reference
    assert document.state["slap_computer_id"] == "COMP-1"
    assert document.state["slap_computer_partition_id"] == "slappart0"


def test_two_people_may_give_the_same_title(world: World) -> None:
    order(world.as_("P-11"), "web")
    first = world.place("web", "COMP-1", "slappart0")
    assert order(world.as_("P-12"), "web").status_code == 408
    answer = loads(order(world.as_("P-11"), "web").data)
    assert isinstance(answer, Marshalled)
    assert answer.state["_instance_guid"] == first


def test_the_project_is_named_or_found_out(world: World) -> None:
    both = world.as_("P-33")
    response = order(both, "web")
    assert response.status_code == 400
    assert "PROJ-1, PROJ-2" in response.text
    assert order(both, "web", project_reference="PROJ-2").status_code == 408
    assert order(both, "other", filters={"project_guid": "PROJ-1"}).status_code == 408
    assert order(both, "third", filters={"computer_guid": "COMP-2"}).status_code == 408
    assert projects_of_trees(world) == {"web": 2, "other": 1, "third": 2}


@pytest.mark.parametrize("project", ["PROJ-2", "PROJ-9", "x"])
def test_a_foreign_project_is_as_one_that_is_not_there(world: World, project: str) -> None:
    response = order(world.as_("P-11"), "web", project_reference=project)
    assert response.status_code == 404
    assert f"there is no project '{project}'" in response.text


def test_a_manager_orders_nothing_without_being_a_customer(world: World) -> None:
    """A node orders nothing either: it asks only for the instances that it holds."""
    assert order(world.as_("COMP-1"), "web").status_code == 403


def test_a_node_is_told_of_itself_only(world: World, web: str, foreign: str) -> None:
    url = "/getFullComputerInformation?computer_id="
    information = told(world.as_("COMP-1").get(f"{url}COMP-1"))
    assert [each.instance_guid for each in information.partitions] == [web, None, None]
    assert world.as_("COMP-1").get(f"{url}COMP-2").status_code == 404
    assert world.as_("P-21").get(f"{url}COMP-1").status_code == 200
    assert world.as_("P-22").get(f"{url}COMP-1").status_code == 404
    # A customer may see that there is such a node, not what is on it.
    assert world.as_("P-11").get(f"{url}COMP-1").status_code == 403


def test_an_instance_is_told_of_its_partition_only(world: World, web: str, foreign: str) -> None:
    order(world.as_("P-33"), "neighbour", project_reference="PROJ-1")
    world.place("neighbour", "COMP-1", "slappart1")
    url = "/getFullComputerInformation?computer_id="
    information = told(world.as_(web).get(f"{url}COMP-1"))
    assert [each.instance_guid for each in information.partitions] == [web]
    assert information.releases == ()
    assert world.as_(foreign).get(f"{url}COMP-1").status_code == 404


PARTITION = {"computer_id": "COMP-1", "computer_partition_id": "slappart0"}


def test_an_instance_asks_for_children_with_its_own_name_only(
    world: World, web: str, foreign: str
) -> None:
    child = request_form("db")
    assert world.as_(web).post(REQUEST, data=child | PARTITION).status_code == 408
    assert world.as_(web).post(REQUEST, data=child).status_code == 408
    # Another project's nodes are as if they were not there.
    assert world.as_(foreign).post(REQUEST, data=child | PARTITION).status_code == 404
    # Its node may ask for it, no other.
    assert world.as_("COMP-1").post(REQUEST, data=child | PARTITION).status_code == 408
    assert world.as_("COMP-2").post(REQUEST, data=child | PARTITION).status_code == 404
    assert set(projects_of_trees(world)) == {"web", "foreign"}


@pytest.mark.parametrize("caller", ["COMP-2", "P-12", "P-22", "foreign"])
@pytest.mark.parametrize(
    ("call", "fields"),
    [
        ("startedComputerPartition", {}),
        ("stoppedComputerPartition", {}),
        ("softwareInstanceError", {"error_log": "x"}),
        ("softwareInstanceBang", {"message": "x"}),
        ("softwareInstanceRename", {"new_name": "x"}),
        ("setComputerPartitionConnectionXml", {"connection_xml": dumps({}).decode()}),
    ],
)
def test_no_stranger_touches_an_instance(
    world: World, web: str, foreign: str, caller: str, call: str, fields: dict[str, str]
) -> None:
    reference = foreign if caller == "foreign" else caller
    response = world.as_(reference).post(f"/{call}", data=PARTITION | fields)
    assert response.status_code in (400, 404), response.text


def test_services_are_listed_to_their_owner(world: World, web: str, foreign: str) -> None:
    url = (
        "/hateoas/?mode=search&query=portal_type:%22Instance+Tree%22+AND+validation_state:validated"
    )
    listed = world.as_("P-11").get(url).get_json()["_embedded"]["contents"]
    assert [row["title"] for row in listed] == ["web"]
    (row,) = world.as_("P-12").get(url).get_json()["_embedded"]["contents"]
    document = f"/hateoas/?mode=traverse&relative_url={row['relative_url']}"
    assert world.as_("P-12").get(document).status_code == 200
    assert world.as_("P-11").get(document).status_code == 404


def test_nodes_are_listed_to_those_who_may_see_them(world: World) -> None:
    query = 'portal_type:"Compute Node" AND validation_state:validated'
    asked = {"mode": "search", "query": query}
    shown = world.as_("P-22").get("/hateoas/", query_string=asked).get_json()
    assert [row["reference"] for row in shown["_embedded"]["contents"]] == ["COMP-2"]
    listed = world.as_("P-22").post("/slapos.allDocs.WIP.compute_node_list", json={})
    assert listed.get_json() == {"result_list": [{"computer_guid": "COMP-2"}]}


def test_json_rpc_names_instances_by_reference(world: World, web: str, foreign: str) -> None:
    url, asked = "/slapos.get.v0.software_instance", {"instance_guid": web}
    assert world.as_("P-11").post(url, json=asked).get_json()["instance_guid"] == web
    assert world.as_(web).post(url, json=asked).get_json()["computer_guid"] == "COMP-1"
    assert world.as_("P-12").post(url, json=asked).status_code == 403
    trees = "/slapos.allDocs.v0.instance_tree_list"
    assert world.as_("P-11").post(trees, json={}).get_json() == {"result_list": [{"title": "web"}]}


def test_a_manager_makes_a_node_by_its_title_once(world: World) -> None:
    asked = {"computer_title": "edge 7"}
    made = loads(world.as_("P-21").post("/requestComputer", data=asked).data)
    assert isinstance(made, Marshalled)
    again = loads(world.as_("P-21").post("/requestComputer", data=asked).data)
    assert again == made
    assert world.as_("P-11").post("/requestComputer", data=asked).status_code == 403
    foreign = {**asked, "project_reference": "PROJ-2"}
    assert world.as_("P-21").post("/requestComputer", data=foreign).status_code == 404
