"""The documents on the wire, to the byte: existing nodes and recipes read them."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from slapos.protocol.marshal import dumps
from tests.integration.master.factories import NODE, URL, format_form, request_form

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def formatted(client: FlaskClient) -> FlaskClient:
    client.post("/loadComputerConfigurationFromXML", data=format_form(2))
    return client


def shown(document: bytes) -> str:
    """Return a document with a line for each element, to be compared and read."""
    return document.decode().replace("><", ">\n<") + "\n"


def test_what_a_node_is_told(formatted: FlaskClient) -> None:
    formatted.post("/supplySupply", data={"url": URL, "computer_id": NODE})
    order = request_form("root", parameters={"a&b": "<ä>", "n": 1}, filters={"fw": "on"})
    formatted.post("/requestComputerPartition", data=order)
    shared = request_form("share", shared=True, parameters={"domain": "example.org"})
    formatted.post("/requestComputerPartition", data=shared)
    place = {"computer_id": NODE, "computer_partition_id": "slappart0"}
    connection = dumps({"url": "http://[::1]/?a&b"}).decode()
    formatted.post(
        "/setComputerPartitionConnectionXml", data={"connection_xml": connection} | place
    )
    told = formatted.get(f"/getFullComputerInformation?computer_id={NODE}")
    assert shown(told.data) == (GOLDEN / "node.xml").read_text()


def test_what_a_requester_is_told(formatted: FlaskClient) -> None:
    told = formatted.post("/requestComputerPartition", data=request_form(parameters={"a": "b"}))
    assert shown(told.data) == (GOLDEN / "requested.xml").read_text()
