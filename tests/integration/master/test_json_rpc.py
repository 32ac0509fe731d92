"""The JSON-RPC calls: their answers, errors, and what is particular to ours."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from slapos.protocol.json_rpc import calls

RELEASE = "https://example.org/hello/software.cfg"
NODE = {"computer_guid": "computer"}


def call(client: FlaskClient, name: str, /, status: Any = 200, **body: Any) -> Any:
    """Make a call, check status and shape of its answer, and return it."""
    described = calls()[f"slapos.{name}"]
    response = client.post(f"/{described.name}", json=body)
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    if status == 200:
        described.check_answer(response.json)
    else:
        assert response.get_json()["status"] == status
        assert set(response.get_json()) == {"status", "type", "title"}
    return response.json


def format_node(client: FlaskClient, count: int = 2) -> None:
    partitions = [
        {
            "partition_id": f"slappart{number}",
            "ip_list": [{"ip-address": "10.0.0.1", "network-interface": "eth0"}],
        }
        for number in range(count)
    ]
    call(client, "put.v0.compute_node_format", **NODE, compute_partition_list=partitions)


def order(client: FlaskClient, title: str, **more: Any) -> Any:
    body = {"title": title, "software_release_uri": RELEASE, "software_type": "default"} | more
    return call(client, "post.v0.software_instance", **body)


def test_an_instance_goes_its_way(client: FlaskClient) -> None:
    format_node(client)
    guid = order(client, "web", parameters={"port": "80"})["instance_guid"]
    instance = {"instance_guid": guid}
    call(
        client,
        "put.v0.software_instance_connection_parameter",
        **instance,
        connection_parameter_dict={"url": "http://[::1]:80/"},
    )
    seen = call(client, "get.v0.software_instance", **instance)
    assert seen["connection_parameters"] == {"url": "http://[::1]:80/"}
    assert seen["parameters"] == {"port": "80"}
    assert call(client, "get.v0.instance_tree", title="web") == seen
    place = {"computer_guid": "computer", "compute_partition_id": "slappart0"}
    assert call(client, "get.v0.compute_partition", **place) == seen
    call(client, "put.v0.software_instance_error", **instance, message="no disk")
    assert (
        "no disk" in call(client, "get.v0.software_instance", **instance)["access_status_message"]
    )
    call(client, "put.v0.software_instance_reported_state", **instance, reported_state="started")
    assert call(client, "allDocs.v0.compute_node_instance_list", **NODE)["result_list"] == [
        {
            "title": "web",
            "instance_guid": guid,
            "state": "started",
            "compute_partition_id": "slappart0",
            "software_release_uri": RELEASE,
        }
    ]
    order(client, "web", state="destroyed")
    call(client, "put.v0.software_instance_reported_state", **instance, reported_state="destroyed")
    call(client, "get.v0.software_instance", 403, **instance)
    assert call(client, "allDocs.v0.instance_tree_list")["result_list"] == []


def test_a_bang_changes_what_is_compared(client: FlaskClient) -> None:
    format_node(client)
    before = order(client, "web")
    assert order(client, "web") == before, "an identical request changes nothing"
    guid = before["instance_guid"]
    call(client, "put.v0.software_instance_bang", instance_guid=guid, message="again")
    after = call(client, "get.v0.software_instance", instance_guid=guid)
    assert after["processing_timestamp"] > before["processing_timestamp"]
    call(client, "put.v0.compute_node_bang", **NODE, message="all of it")
    last = call(client, "get.v0.software_instance", instance_guid=guid)
    assert last["processing_timestamp"] > after["processing_timestamp"]


@pytest.mark.parametrize("title", ["a___b", "___", "a___1___0", "Été"])
def test_any_title_can_be_named(client: FlaskClient, title: str) -> None:
    format_node(client)
    guid = order(client, title)["instance_guid"]
    assert call(client, "get.v0.software_instance", instance_guid=guid)["title"] == title


def test_an_instance_can_be_named_by_its_reference(client: FlaskClient) -> None:
    format_node(client)
    order(client, "web")
    seen = call(client, "get.v0.software_instance", instance_guid="computer-slappart0")
    assert seen["title"] == "web"


def test_releases_on_a_node(client: FlaskClient) -> None:
    release = {**NODE, "software_release_uri": RELEASE}
    call(client, "post.v0.software_installation", **release)
    listed = call(client, "allDocs.v0.compute_node_software_installation_list", **NODE)
    assert listed["result_list"] == [{"software_release_uri": RELEASE, "state": "available"}]
    call(client, "put.v0.software_installation_error", **release, message="no compiler")
    reported = "put.v0.software_installation_reported_state"
    call(client, reported, **release, reported_state="building")
    call(client, "post.v0.software_installation", **release, state="destroyed")
    call(client, reported, **release, reported_state="destroyed")
    listed = call(client, "allDocs.v0.compute_node_software_installation_list", **NODE)
    assert listed["result_list"] == []


def test_without_a_free_partition_the_reason_is_in_a_header(client: FlaskClient) -> None:
    format_node(client, 0)
    body = {"title": "web", "software_release_uri": RELEASE, "software_type": "default"}
    response = client.post("/slapos.post.v0.software_instance", json=body)
    assert response.status_code == 403
    assert "slapos node format" in response.headers["X-SlapOS-Reason"]


def test_what_is_not_there_cannot_be_destroyed(client: FlaskClient) -> None:
    format_node(client)
    assert order(client, "web", state="destroyed")["name"] == "SoftwareInstanceNotReady"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "title"),
        ({"title": "web", "software_release_uri": RELEASE, "software_type": 1}, "software_type"),
        (
            {
                "title": "web",
                "software_release_uri": RELEASE,
                "software_type": "default",
                "colour": "red",
            },
            "colour",
        ),
        ([], "object"),
    ],
)
def test_a_wrong_body_is_told_by_its_field(client: FlaskClient, body: Any, field: str) -> None:
    response = client.post("/slapos.post.v0.software_instance", json=body)
    assert response.status_code == 400
    assert field in response.get_json()["title"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"method": "GET"}, 405),
        ({"method": "POST", "json": {}, "headers": {"Accept": "text/html"}}, 406),
        ({"method": "POST", "data": "{", "content_type": "application/json"}, 400),
        ({"method": "POST", "data": "[" * 100_000, "content_type": "application/json"}, 400),
        ({"method": "POST", "data": b"\xff", "content_type": "application/json"}, 400),
        ({"method": "POST", "data": "", "content_type": "application/json"}, 400),
        ({"method": "POST", "data": "{}", "content_type": "text/plain"}, 415),
    ],
)
def test_errors_are_json(client: FlaskClient, request_: dict[str, Any], status: int) -> None:
    response = client.open("/slapos.allDocs.v0.instance_tree_list", **request_)
    assert response.status_code == status
    assert response.get_json()["status"] == status
    assert set(response.get_json()) == {"status", "type", "title"}


def test_every_call_has_its_place(client: FlaskClient) -> None:
    for name in calls():
        assert client.post(f"/{name}", json={"no such field": 1}).status_code == 400
