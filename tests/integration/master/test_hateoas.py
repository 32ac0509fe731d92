"""The hateoas answers, asked as the command line asks them."""

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event

from slapos.protocol.marshal import dumps

RELEASE = "https://example.org/hello/software.cfg"
SERVICES = 'portal_type:"Instance Tree" AND validation_state:validated'
NODES = 'portal_type:"Compute Node" AND validation_state:validated'
INSTANCES = (
    'portal_type:("Software Instance", "Slave Instance") AND validation_state:validated'
    ' AND default_specialise_title:="web"'
)
INSTALLATIONS = (
    'portal_type:"Software Installation" AND validation_state:validated'
    ' AND default_aggregate_reference:="computer"'
)


def format_node(client: FlaskClient, count: int, reference: str = "computer") -> None:
    partitions = [
        {"reference": f"slappart{n}", "address_list": [], "tap": {}} for n in range(count)
    ]
    told = {"reference": reference, "address": "", "netmask": "", "partition_list": partitions}
    form = {"xml": dumps(told).decode()}
    assert client.post("/loadComputerConfigurationFromXML", data=form).status_code == 200


def order(client: FlaskClient, title: str, *, shared: bool = False) -> None:
    form = {
        "software_release": RELEASE,
        "software_type": "default",
        "partition_reference": title,
        "shared_xml": dumps(shared).decode(),
        "partition_parameter_xml": dumps({"colour": "red"}).decode(),
        "filter_xml": dumps({}).decode(),
        "state": dumps("started").decode(),
    }
    assert client.post("/requestComputerPartition", data=form).status_code == 200


def search(client: FlaskClient, query: str, *names: str, **more: str) -> list[dict[str, Any]]:
    arguments = {"mode": "search", "query": query, "select_list": list(names), **more}
    response = client.get("/hateoas/", query_string=arguments)
    assert response.status_code == 200, response.text
    rows: list[dict[str, Any]] = response.get_json()["_embedded"]["contents"]
    return rows


def traverse(client: FlaskClient, relative_url: str) -> dict[str, Any]:
    arguments = {"mode": "traverse", "relative_url": relative_url, "view": "slaposjs_view"}
    response = client.get("/hateoas/", query_string=arguments)
    assert response.status_code == 200, response.text
    view: dict[str, Any] = response.get_json()["_embedded"]["_view"]
    return {name: field["default"] for name, field in view.items()}


def test_the_root_document_names_the_templates(client: FlaskClient) -> None:
    url = client.get("/getHateoasUrl").text
    assert url == "http://localhost/hateoas/"
    links = client.get(url).get_json()["_links"]
    assert links["self"]["href"] == url
    assert links["raw_search"]["href"] == f"{url}?mode=search{{&query,select_list*}}"
    assert parse_qs(urlsplit(links["traverse"]["href"].split("{")[0]).query)["mode"] == ["traverse"]


def test_every_service_is_listed_however_many(client: FlaskClient) -> None:
    format_node(client, 60)
    for number in range(60):
        order(client, f"service {number}")
    order(client, "guest", shared=True)
    rows = search(client, SERVICES, "title", "url_string")
    assert len(rows) == 61
    assert rows[0].keys() == {"title", "url_string", "_links"}
    assert len(search(client, SERVICES, limit="10")) == 10


def test_a_service_is_found_by_its_title_and_shown(client: FlaskClient) -> None:
    format_node(client, 1)
    order(client, "web")
    (row,) = search(client, f'{SERVICES} AND title:="web"', "title", "relative_url")
    view = traverse(client, row["relative_url"])
    assert view["my_url_string"] == RELEASE
    assert view["my_slap_state"] == "started"
    assert '<parameter id="colour">red</parameter>' in view["my_text_content"]
    assert search(client, f'{SERVICES} AND title:="other"') == []


def test_the_instances_of_a_service(client: FlaskClient) -> None:
    format_node(client, 1)
    order(client, "web")
    (row,) = search(client, INSTANCES, "title", "portal_type", "SoftwareInstance_getNewsDict")
    assert row["portal_type"] == "Software Instance"
    assert row["SoftwareInstance_getNewsDict"]["no_data"] == 1
    form = {"computer_id": "computer", "computer_partition_id": "slappart0"}
    client.post("/startedComputerPartition", data=form)
    (row,) = search(client, INSTANCES)
    assert row["SoftwareInstance_getNewsDict"]["text"].startswith("#access")
    assert traverse(client, row["relative_url"])["my_news"]["text"].startswith("#access")


def test_nodes_and_their_news(client: FlaskClient) -> None:
    format_node(client, 1)
    format_node(client, 1, "other")
    order(client, "web")
    assert len(search(client, NODES)) == 2
    (row,) = search(client, f'{NODES} AND reference:="computer"', "reference", "relative_url")
    view = traverse(client, row["relative_url"])
    assert view["my_title"] == "computer"
    assert view["my_news"]["computer"]["text"].startswith("#access")
    assert view["my_news"]["partition"].keys() == {"slappart0"}


def test_nodes_and_releases_take_one_statement_however_many(client: FlaskClient) -> None:
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        # Others of this process ask too: they tell of what was supplied.
        if re.search(r"\sFROM (compute_nodes|software_installations)\b", statement):
            found.append(statement)

    engine = client.application.extensions["slapos"].database.engine
    every = INSTALLATIONS.partition(" AND default_aggregate")[0]
    for number, name in enumerate(("computer", "other", "third"), 1):
        format_node(client, 1, name)
        form = {"url": RELEASE, "computer_id": name}
        assert client.post("/supplySupply", data=form).status_code == 200
        event.listen(engine, "before_cursor_execute", note)
        assert len(search(client, NODES)) == number
        assert len(search(client, every)) == number
        event.remove(engine, "before_cursor_execute", note)
        assert len(found) == 2, found
        found.clear()
    assert len(search(client, NODES, limit="2")) == 2


def test_releases_of_a_node(client: FlaskClient) -> None:
    client.post("/supplySupply", data={"url": RELEASE, "computer_id": "computer"})
    (row,) = search(client, INSTALLATIONS, "url_string", "SoftwareInstallation_getNewsDict")
    assert row["url_string"] == RELEASE
    assert row["SoftwareInstallation_getNewsDict"]["no_data"] == 1


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"mode": "search", "query": 'portal_type:"Person"'}, 400),
        ({"mode": "search", "query": f'{SERVICES} AND title:="a" OR title:="b"'}, 400),
        ({"mode": "search"}, 400),
        ({"mode": "form"}, 400),
        ({"mode": "traverse", "relative_url": "instance_tree_module/99"}, 404),
        ({"mode": "traverse", "relative_url": "../etc/passwd"}, 404),
    ],
)
def test_what_is_not_understood_is_said(
    client: FlaskClient, arguments: dict[str, str], status: int
) -> None:
    response = client.get("/hateoas/", query_string=arguments)
    assert response.status_code == status
    assert response.get_json()["message"]
