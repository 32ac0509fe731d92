"""The SLAP calls over HTTP, as clients send them."""

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from slapos.protocol.marshal import Marshalled, dumps, loads
from slapos.protocol.messages import NodeInformation, PartitionInformation, RequestedInstance
from slapos.protocol.states import InstanceState
from tests.fakes import FakeClock
from tests.integration.master.factories import NODE, URL, format_form, request_form

PLACE = {"computer_id": NODE, "computer_partition_id": "slappart0"}


def post(client: FlaskClient, call: str, status: int = 200, /, **form: str) -> str:
    answer = client.post(f"/{call}", data=form)
    assert answer.status_code == status, answer.text
    return answer.text


def request_(client: FlaskClient, title: str = "root", **fields: object) -> RequestedInstance:
    text = post(client, "requestComputerPartition", **request_form(title, **fields))
    return RequestedInstance.from_marshalled(loads(text.encode()))


def node_of(client: FlaskClient, node: str = NODE) -> NodeInformation:
    return NodeInformation.from_marshalled(loads(full(client, node).data))


def partition_of(client: FlaskClient, number: int = 0) -> PartitionInformation:
    return node_of(client).partitions[number]


def full(client: FlaskClient, node: str = NODE, **headers: str) -> TestResponse:
    return client.get(f"/getFullComputerInformation?computer_id={node}", headers=headers)


@pytest.fixture
def formatted(client: FlaskClient) -> FlaskClient:
    assert post(client, "loadComputerConfigurationFromXML", **format_form(2)) == "done"
    return client


def test_an_order_from_request_to_report(formatted: FlaskClient) -> None:
    client = formatted
    said = post(client, "supplySupply", url=URL, computer_id=NODE, state="available")
    assert said == f"Supplied '{URL}' to be available"
    given = request_(client, parameters={"a": 1})
    assert (given.guid, given.node, given.partition) == (
        "computer-slappart0",
        "computer",
        "slappart0",
    )
    node = node_of(client)
    assert [release.url for release in node.releases] == [URL]
    held = node.partitions[0]
    assert held.parameters["a"] == "1"
    assert held.timestamp == given.parameters["timestamp"]
    assert held.access_status == "#error no data found for computer-slappart0"
    assert node.partitions[1].is_free
    for call in ("buildingSoftwareRelease", "availableSoftwareRelease"):
        assert post(client, call, url=URL, computer_id=NODE) == "Ignored"
    assert post(client, "startedComputerPartition", **PLACE) == "Ignored"
    assert partition_of(client).access_status == "#access Instance correctly started"
    assert partition_of(client).timestamp == held.timestamp


def test_a_repeated_request_gets_the_same_answer(formatted: FlaskClient, clock: FakeClock) -> None:
    form = request_form(parameters={"a": 1})
    first = post(formatted, "requestComputerPartition", **form)
    clock.advance(60)
    assert post(formatted, "requestComputerPartition", **form) == first


def test_what_is_published_comes_with_the_next_request(formatted: FlaskClient) -> None:
    request_(formatted)
    connection = dumps({"url": "http://x/?a&b", "port": 1}).decode()
    said = post(formatted, "setComputerPartitionConnectionXml", connection_xml=connection, **PLACE)
    assert said == "done"
    assert request_(formatted).connection == {"url": "http://x/?a&b", "port": "1"}


def test_an_instance_that_is_gone_asks_for_nothing(formatted: FlaskClient) -> None:
    """A buildout may outlive its instance: what it asks for must not become a service."""
    late = request_form("child", requester_is_instance="true")
    place = {"computer_id": NODE, "computer_partition_id": "slappart0"}
    response = formatted.post("/requestComputerPartition", data=late | place)
    assert (response.status_code, "is free" in response.text) == (403, True)
    # slapproxy's clients do not say what they are, and ask for the person.
    response = formatted.post("/requestComputerPartition", data=request_form("child") | place)
    assert response.status_code == 200


def test_a_partition_that_asks_is_named_by_the_header_or_the_form(formatted: FlaskClient) -> None:
    request_(formatted)
    form = request_form("child")
    place = "computer_id=computer, computer_partition_id=slappart0"
    header = {"Authorization": f"X-SlapPartition {place}"}
    answer = formatted.post("/requestComputerPartition", data=form, headers=header)
    assert answer.status_code == 200
    again = formatted.post("/requestComputerPartition", data={**form, **PLACE})
    assert again.data == answer.data
    assert partition_of(formatted, 1).parameters["root_instance_title"] == "root"


def test_a_free_partition_asks_for_the_person(formatted: FlaskClient) -> None:
    answer = formatted.post("/requestComputerPartition", data={**request_form(), **PLACE})
    assert answer.status_code == 200
    assert partition_of(formatted).parameters["root_instance_title"] == "root"


def test_a_header_that_names_nobody_is_refused(formatted: FlaskClient) -> None:
    header = {"Authorization": "X-SlapPartition computer_id=a,computer_partition_id=b"}
    answer = formatted.post("/requestComputerPartition", data=request_form(), headers=header)
    assert answer.status_code == 400
    assert "No partition matching the authorization header: (a / b)" in answer.text


def test_a_shared_instance_is_listed_on_its_host(formatted: FlaskClient) -> None:
    request_(formatted)
    given = request_(formatted, "s", shared=True, parameters={"domain": "example.org"})
    assert (given.node, given.partition, given.guid) == ("computer", "slappart0", "_s")
    assert partition_of(formatted).parameters["slave_instance_list"] == [
        {
            "slave_title": "_s",
            "slave_reference": "_s",
            "slap_software_type": "default",
            "domain": "example.org",
        }
    ]
    post(
        formatted,
        "setComputerPartitionConnectionXml",
        connection_xml=dumps({"url": "x"}).decode(),
        slave_reference="_s",
        **PLACE,
    )
    assert request_(formatted, "s", shared=True, parameters={"domain": "example.org"}).connection
    gone = request_(formatted, "s", shared=True, state="destroyed")
    assert gone.state is InstanceState.DESTROYED
    assert partition_of(formatted).parameters["slave_instance_list"] == []


def test_a_tree_is_given_up(formatted: FlaskClient) -> None:
    request_(formatted)
    formatted.post("/requestComputerPartition", data={**request_form("child"), **PLACE})
    assert request_(formatted, state="destroyed").state is InstanceState.DESTROYED
    said = post(formatted, "destroyedComputerPartition", **PLACE)
    assert said.startswith("Not destroying yet because this partition has child partitions: child")
    other = PLACE | {"computer_partition_id": "slappart1"}
    assert post(formatted, "destroyedComputerPartition", **other) == "OK"
    assert all(partition.is_free for partition in node_of(formatted).partitions)
    assert post(formatted, "destroyedComputerPartition", **PLACE) == "OK"


def test_what_is_ordered_again_while_its_node_destroys_it_stays(
    formatted: FlaskClient, clock: FakeClock
) -> None:
    request_(formatted)
    clock.advance(1)
    request_(formatted, state="destroyed")
    destroyed = str(partition_of(formatted).timestamp)
    clock.advance(1)
    request_(formatted, parameters={"colour": "blue"})
    assert post(formatted, "destroyedComputerPartition", **PLACE, timestamp=destroyed) == "OK"
    held = partition_of(formatted)
    assert held.state is InstanceState.STARTED
    assert float(str(held.timestamp)) > float(destroyed)


def test_a_release_is_removed(client: FlaskClient) -> None:
    post(client, "supplySupply", url=URL, computer_id=NODE)
    post(client, "supplySupply", url=URL, computer_id=NODE, state="destroyed")
    assert [str(release.state) for release in node_of(client).releases] == ["destroyed"]
    assert post(client, "destroyedSoftwareRelease", url=URL, computer_id=NODE) == "OK"
    assert node_of(client).releases == ()


def test_bangs_and_names(formatted: FlaskClient, clock: FakeClock) -> None:
    before = request_(formatted).parameters["timestamp"]
    clock.advance(1)
    assert post(formatted, "softwareInstanceBang", message="m", **PLACE) == "OK"
    first = partition_of(formatted).timestamp
    assert loads(post(formatted, "computerBang", computer_id=NODE, message="m").encode()) == ""
    second = partition_of(formatted).timestamp
    assert before < str(first) < str(second)
    assert post(formatted, "softwareInstanceRename", new_name="new", **PLACE) == "done"
    assert partition_of(formatted).title == "new"


def test_what_the_node_said_last_can_be_asked(formatted: FlaskClient, clock: FakeClock) -> None:
    def ask(call: str, **query: str) -> dict[str, object]:
        answer = formatted.get(f"/{call}", query_string=query)
        assert answer.status_code == 200, answer.text
        found = loads(answer.data)
        assert isinstance(found, dict)
        return found

    request_(formatted)
    assert ask("getComputerPartitionStatus", **PLACE)["no_data"] == 1
    post(formatted, "softwareInstanceError", error_log="it broke", **PLACE)
    clock.advance(6 * 60)
    found = ask("getComputerPartitionStatus", **PLACE)
    assert found["text"] == "#error it broke"
    assert found["no_data_since_5_minutes"] == 1
    assert found["created_at"] == "Sun, 01 Mar 2026 12:00:00 GMT"
    assert ask("getComputerStatus", computer_id=NODE)["portal_type"] == "Compute Node"
    post(formatted, "supplySupply", url=URL, computer_id=NODE)
    post(formatted, "softwareReleaseError", url=URL, computer_id=NODE, error_log="no gcc")
    found = ask("getSoftwareInstallationStatus", url=URL, computer_id=NODE)
    assert found["text"] == f"#error while installing {URL}"


def test_small_calls(formatted: FlaskClient) -> None:
    def ask(call: str, **query: str) -> object:
        return loads(formatted.get(f"/{call}", query_string=query).data)

    request_(formatted)
    assert ask("getComputerPartitionCertificate", **PLACE) == {"certificate": "", "key": ""}
    assert ask("getHostingSubscriptionIpList", **PLACE) == [("lo", "10.0.0.0")]
    product = {"software_product_reference": "hello"}
    assert ask("getSoftwareReleaseListFromSoftwareProduct", **product) == [
        "https://example.org/hello/software.cfg"
    ]
    product = {"software_product_reference": "unknown"}
    assert ask("getSoftwareReleaseListFromSoftwareProduct", **product) == []
    assert post(formatted, "updateComputerPartitionRelatedInstanceList", **PLACE) == ""
    assert post(formatted, "useComputer", computer_id=NODE, use_string="<x/>") == "Ignored"
    made = loads(post(formatted, "requestComputer", computer_title="new").encode())
    assert isinstance(made, Marshalled)
    assert node_of(formatted, "new").partitions == ()
    place = {"computer_reference": NODE, "computer_partition_reference": "slappart0"}
    one = formatted.get("/registerComputerPartition", query_string=place)
    assert PartitionInformation.from_marshalled(loads(one.data)) == partition_of(formatted)


@pytest.mark.parametrize(
    ("call", "form", "status", "reason"),
    [
        ("supplySupply", {"url": URL}, 400, "the field 'computer_id' is missing"),
        (
            "supplySupply",
            {"url": URL, "computer_id": NODE, "state": "built"},
            400,
            "'available' or 'destroyed' on a node, not 'built'",
        ),
        ("supplySupply", {"url": URL, "computer_id": "x"}, 404, "there is no node 'x'"),
        ("availableSoftwareRelease", {"url": URL, "computer_id": NODE}, 404, "slapos supply"),
        ("startedComputerPartition", PLACE, 404, "partition 'slappart0' of the node"),
        (
            "startedComputerPartition",
            PLACE | {"computer_partition_id": "x"},
            404,
            "the node 'computer' has no partition 'x'",
        ),
        ("requestComputerPartition", request_form(state="up"), 400, "not 'up'"),
        ("requestComputerPartition", request_form(state="destroyed"), 408, "none to destroy"),
        ("requestComputerPartition", request_form(shared=True), 404, "no instance can host"),
        (
            "requestComputerPartition",
            request_form() | {"filter_xml": "<marshal><list/></marshal>"},
            400,
            "the field 'filter_xml' is no dictionary",
        ),
        (
            "requestComputerPartition",
            request_form() | {"filter_xml": "<marshal>"},
            400,
            "the field 'filter_xml' cannot be read",
        ),
        ("loadComputerConfigurationFromXML", {"xml": "{}"}, 400, "not well-formed XML"),
        ("loadComputerConfigurationFromXML", {"xml": dumps([]).decode()}, 400, "no description"),
        (
            "loadComputerConfigurationFromXML",
            {"xml": dumps({"reference": "a", "partition_list": [1]}).decode()},
            400,
            "no description of a node",
        ),
    ],
)
def test_what_is_wrong_is_told_in_words(
    formatted: FlaskClient, call: str, form: dict[str, str], status: int, reason: str
) -> None:
    assert reason in post(formatted, call, status, **form)


def test_a_document_with_entities_is_refused(formatted: FlaskClient) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><marshal><string>&a;</string></marshal>'
    form = request_form() | {"state": bomb}
    assert "refused" in post(formatted, "requestComputerPartition", 400, **form)


def test_a_body_that_is_too_large_is_refused(client: FlaskClient) -> None:
    answer = client.post("/loadComputerConfigurationFromXML", data={"xml": "x" * 17_000_000})
    assert answer.status_code == 413


def test_who_has_the_same_already_is_told_nothing(formatted: FlaskClient) -> None:
    first = full(formatted)
    etag = first.headers["ETag"]
    again = full(formatted, **{"If-None-Match": etag})
    assert (again.status_code, again.data) == (304, b"")
    request_(formatted)
    changed = full(formatted, **{"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag


def test_a_report_names_what_it_is_about(formatted: FlaskClient) -> None:
    """A change that came while the node was at work is not taken for done."""
    for call in ("supplySupply", "availableSoftwareRelease"):
        post(formatted, call, url=URL, computer_id=NODE)
    before = request_(formatted).parameters["timestamp"]
    after = request_(formatted, parameters={"a": "b"}).parameters["timestamp"]

    def phase() -> object:
        return formatted.get("/v1/instance-trees/root").get_json()["instances"][0]["phase"]

    post(formatted, "startedComputerPartition", timestamp=before, **PLACE)
    assert phase() == "instantiating"
    post(formatted, "softwareInstanceError", error_log="broken", timestamp=before, **PLACE)
    assert phase() == "instantiating"
    post(formatted, "softwareInstanceError", error_log="broken", timestamp=after, **PLACE)
    assert phase() == "failed"
    post(formatted, "startedComputerPartition", timestamp=after, **PLACE)
    assert phase() == "healthy"
    post(formatted, "startedComputerPartition", 400, timestamp="soon", **PLACE)
