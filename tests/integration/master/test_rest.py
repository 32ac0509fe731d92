"""The first REST interface, in JSON."""

from flask.testing import FlaskClient

from slapos.master import migrations
from slapos.protocol.tree_status import Phase, TreeStatus
from tests.integration.master.factories import NODE, URL, format_form, request_form


def test_a_service_and_its_node(client: FlaskClient) -> None:
    client.post("/loadComputerConfigurationFromXML", data=format_form(2))
    client.post("/supplySupply", data={"url": URL, "computer_id": NODE})
    client.post("/requestComputerPartition", data=request_form("a/b c"))
    tree = TreeStatus.from_json(client.get("/v1/instance-trees/a/b c").get_json())
    assert tree.root.phase is Phase.BUILDING
    listed = client.get("/v1/instance-trees").get_json()["instance_trees"]
    assert [TreeStatus.from_json(item) for item in listed] == [tree]
    node = client.get(f"/v1/nodes/{NODE}").get_json()
    assert node["installations"][0]["url"] == URL
    busy, free = node["partitions"]
    assert busy["instance"] == {"guid": "computer-slappart0", "title": "a/b c", "tree": "a/b c"}
    assert (busy["state"], free["state"], free["instance"]) == ("busy", "free", None)
    assert client.get("/v1/nodes").get_json()["nodes"][0]["reference"] == NODE
    parts = client.get(f"/v1/nodes/{NODE}/partitions").get_json()["partitions"]
    assert [part["reference"] for part in parts] == ["slappart0", "slappart1"]
    assert client.get(f"/v1/nodes/{NODE}/installations").get_json()["installations"]
    assert client.get("/v1/products").get_json()["products"][0]["reference"] == "hello"


def test_what_is_not_there_has_a_code_and_a_reason(client: FlaskClient) -> None:
    for path, reason in (
        ("/v1/instance-trees/x", "there is no service 'x'"),
        ("/v1/nodes/x", "there is no node 'x'"),
        ("/v1/x", "not found"),
    ):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.get_json()["error"] == "not_found"
        assert reason in answer.get_json()["message"]
    assert client.post("/v1/nodes").get_json()["error"] == "method_not_allowed"


def test_health_tells_the_version_of_the_schema(client: FlaskClient) -> None:
    assert client.get("/v1/health").get_json() == {
        "status": "ok",
        "migration": migrations.HEAD,
        "current": True,
    }
