"""The change feed: which changes a node is woken for, and what its tokens mean."""

import gzip
import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from slapos.master.app import create_app
from slapos.master.settings import Settings
from slapos.protocol.marshal import dumps, loads
from slapos.protocol.messages import NodeInformation
from slapos.system.clock import SystemClock
from tests.integration.master.factories import NODE, URL, format_form, request_form

PATH = f"/v1/nodes/{NODE}/changes"
ROOT = {"computer_id": NODE, "computer_partition_id": "slappart0"}
CHILD = {"computer_id": NODE, "computer_partition_id": "slappart1"}


def changes(client: FlaskClient, since: str = "", **query: str) -> dict[str, Any]:
    asked = {"since": since, **query} if since else query
    answer = client.get(PATH, query_string=asked)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.get_json()
    return told


@pytest.fixture
def tree(client: FlaskClient) -> FlaskClient:
    """A root with a child, and a release."""
    client.post("/loadComputerConfigurationFromXML", data=format_form(4))
    client.post("/supplySupply", data={"url": URL, "computer_id": NODE})
    client.post("/requestComputerPartition", data=request_form())
    client.post("/requestComputerPartition", data=request_form("child") | ROOT)
    return client


ACTS: dict[str, tuple[str, dict[str, str]]] = {
    "a new instance": ("requestComputerPartition", request_form("new")),
    "a new shared instance": ("requestComputerPartition", request_form("new", shared=True)),
    "other parameters": ("requestComputerPartition", request_form(parameters={"a": "b"})),
    "another state": ("requestComputerPartition", request_form(state="stopped")),
    "what a child publishes": (
        "setComputerPartitionConnectionXml",
        {"connection_xml": dumps({"url": "x"}).decode(), **CHILD},
    ),
    "a bang": ("softwareInstanceBang", {"message": "m", **ROOT}),
    "a bang of the node": ("computerBang", {"message": "m", "computer_id": NODE}),
    "a new release": ("supplySupply", {"url": URL + "/2", "computer_id": NODE}),
    "a release to be removed": (
        "supplySupply",
        {"url": URL, "computer_id": NODE, "state": "destroyed"},
    ),
    "a new partition": ("loadComputerConfigurationFromXML", format_form(5)),
    "a title": ("softwareInstanceRename", {"new_name": "new", **ROOT}),
    "an instance that is gone": ("destroyedComputerPartition", CHILD),
}
REPORTS: dict[str, tuple[str, dict[str, str]]] = {
    "a state": ("startedComputerPartition", ROOT),
    "a failure": ("softwareInstanceError", {"error_log": "broken", **ROOT}),
    "a build": ("buildingSoftwareRelease", {"url": URL, "computer_id": NODE}),
    "a release": ("availableSoftwareRelease", {"url": URL, "computer_id": NODE}),
    "the same request": ("requestComputerPartition", request_form()),
    "the same format": ("loadComputerConfigurationFromXML", format_form(4)),
}


@pytest.mark.parametrize("what", ACTS)
def test_what_a_node_has_to_act_on_changes_its_token(tree: FlaskClient, what: str) -> None:
    before = changes(tree)["token"]
    assert changes(tree, before) == {"token": before, "changed": False}
    call, form = ACTS[what]
    assert tree.post(f"/{call}", data=form).status_code == 200
    after = changes(tree, before)
    assert after["changed"]
    assert after["token"] != before


@pytest.mark.parametrize("what", REPORTS)
def test_what_a_node_says_itself_is_no_news_to_it(tree: FlaskClient, what: str) -> None:
    before = changes(tree)["token"]
    call, form = REPORTS[what]
    assert tree.post(f"/{call}", data=form).status_code == 200
    assert not changes(tree, before)["changed"]


def test_what_is_undone_changes_nothing(tree: FlaskClient) -> None:
    before = changes(tree)["token"]
    refused = request_form("new", filters={"computer_guid": "elsewhere"})
    assert tree.post("/requestComputerPartition", data=refused).status_code == 404
    assert not changes(tree, before)["changed"]


@pytest.mark.parametrize("token", ["1", "x" * 5000, "%00", "\N{SNOWMAN}"])
def test_any_other_token_counts_as_a_change(tree: FlaskClient, token: str) -> None:
    assert changes(tree, token)["changed"]


def test_a_token_survives_the_master_but_not_another_database(
    tree: FlaskClient, settings: Settings, tmp_path: Any
) -> None:
    token = changes(tree)["token"]
    for url, is_same in ((settings.database_url, True), (f"sqlite:///{tmp_path}/other.db", False)):
        app = create_app(Settings(database_url=url), SystemClock())
        other = app.test_client()
        if not is_same:
            other.post("/loadComputerConfigurationFromXML", data=format_form(4))
        assert changes(other, token)["changed"] is not is_same
        app.extensions["slapos"].database.close()


def test_the_information_comes_along_when_it_is_asked_for(tree: FlaskClient) -> None:
    told = changes(tree, information="1")
    answer = tree.get(f"/getFullComputerInformation?computer_id={NODE}")
    assert told["information"].encode() == answer.data
    assert answer.headers["ETag"] == f'"{told["etag"]}"'
    assert set(changes(tree, told["token"], information="1")) == {"token", "changed"}
    assert set(changes(tree)) == {"token", "changed"}


def test_it_is_compressed_for_those_who_can_read_that(tree: FlaskClient) -> None:
    plain = tree.get(f"{PATH}?information=1")
    answer = tree.get(f"{PATH}?information=1", headers={"Accept-Encoding": "gzip, deflate"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(answer.data)) == plain.get_json()
    assert len(answer.data) * 3 < len(plain.data)


def test_an_unknown_node_is_named(client: FlaskClient) -> None:
    answer = client.get("/v1/nodes/nobody/changes")
    assert answer.status_code == 404
    assert "there is no node 'nobody'" in answer.get_json()["message"]


def test_a_node_that_is_new_has_a_token(client: FlaskClient) -> None:
    client.post("/requestComputer", data={"computer_title": "a/b"})
    answer = client.get("/v1/nodes/a/b/changes").get_json()
    assert answer["token"]
    again = client.get(f"/v1/nodes/a/b/changes?since={answer['token']}").get_json()
    assert again == {"token": answer["token"], "changed": False}
    assert (
        NodeInformation.from_marshalled(
            loads(client.get("/getFullComputerInformation?computer_id=a/b").data)
        ).reference
        == "a/b"
    )
