"""What is asked over and over is answered from what was kept, and only while it is true."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event
from werkzeug.test import TestResponse

from slapos.master.app import create_app
from slapos.master.settings import Settings
from slapos.protocol.marshal import dumps, loads
from slapos.protocol.messages import RequestedInstance
from slapos.protocol.states import InstanceState
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.factories import NODE, format_form, request_form

ROOT = {"computer_id": NODE, "computer_partition_id": "slappart0"}
CHILD = {"computer_id": NODE, "computer_partition_id": "slappart1"}


def ask(client: FlaskClient, **form: str) -> RequestedInstance:
    answer = client.post("/requestComputerPartition", data=form)
    assert answer.status_code == 200, answer.text
    return RequestedInstance.from_marshalled(loads(answer.data))


@pytest.fixture
def statements(app: Flask) -> list[str]:
    """What the database has been asked, each statement once it is asked."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "pg_notify" not in statement:  # a thread of its own tells others
            found.append(statement)

    event.listen(app.extensions["slapos"].database.engine, "before_cursor_execute", note)
    return found


@pytest.fixture
def tree(client: FlaskClient) -> FlaskClient:
    """A root that has requested a child, both requests kept."""
    client.post("/loadComputerConfigurationFromXML", data=format_form(4))
    for _ in range(2):
        ask(client, **request_form())
        ask(client, **(request_form("child") | ROOT))
    return client


def test_the_same_again_takes_one_look(tree: FlaskClient, statements: list[str]) -> None:
    for form in (request_form(), request_form("child") | ROOT):
        statements.clear()
        ask(tree, **form)
        assert len(statements) == 1


def test_a_node_that_asks_again_takes_one_look(tree: FlaskClient, statements: list[str]) -> None:
    def told(**headers: str) -> TestResponse:
        return tree.get(f"/getFullComputerInformation?computer_id={NODE}", headers=headers)

    first = told()
    statements.clear()
    again = told()
    assert (again.data, again.headers["ETag"]) == (first.data, first.headers["ETag"])
    assert again.headers["Content-Type"] == first.headers["Content-Type"]
    nothing = told(**{"If-None-Match": first.headers["ETag"]})
    assert (nothing.status_code, nothing.data) == (304, b"")
    assert len(statements) == 2


Change = tuple[Callable[[FlaskClient], object], Callable[[RequestedInstance], bool]]


def call(name: str, **form: str) -> Callable[[FlaskClient], object]:
    return lambda client: client.post(f"/{name}", data=form)


CHANGES: dict[str, Change] = {
    "published": (
        call(
            "setComputerPartitionConnectionXml",
            connection_xml=dumps({"url": "x"}).decode(),
            **CHILD,
        ),
        lambda given: given.connection == {"url": "x"},
    ),
    "root stopped": (
        call("requestComputerPartition", **request_form(state="stopped")),
        lambda given: given.state is InstanceState.STOPPED,
    ),
    "root renamed": (
        call("softwareInstanceRename", new_name="new", **ROOT),
        lambda given: given.attributes["root_instance_title"] == "new",
    ),
    "new addresses": (
        lambda client: client.post(
            "/loadComputerConfigurationFromXML",
            data={"xml": format_form(4)["xml"].replace("10.0.0.", "10.9.9.")},
        ),
        lambda given: given.attributes["ip_list"] == [("lo", "10.9.9.1")],
    ),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "by another process"])
def test_a_change_is_answered(
    tree: FlaskClient, settings: Settings, clock: FakeClock, what: str, *, elsewhere: bool
) -> None:
    change, is_answered = CHANGES[what]
    form = request_form("child") | ROOT
    assert not is_answered(ask(tree, **form))
    if elsewhere:
        other = create_app(settings, clock, FakeIdentifiers())
        change(other.test_client())
        other.extensions["slapos"].database.close()
    else:
        change(tree)
    assert is_answered(ask(tree, **form))


def test_the_same_request_starts_a_child_again_when_its_root_is_started(tree: FlaskClient) -> None:
    form = request_form("child") | ROOT
    for state in (InstanceState.STOPPED, InstanceState.STARTED):
        ask(tree, **request_form(state=str(state)))
        for _ in range(2):
            assert ask(tree, **form).state is state


def test_an_instance_that_is_gone_is_made_anew(tree: FlaskClient) -> None:
    form = request_form("child") | ROOT
    before = ask(tree, **form).parameters["timestamp"]
    tree.post("/destroyedComputerPartition", data=CHILD)
    assert ask(tree, **form).parameters["timestamp"] >= before
    answer = tree.get(
        "/registerComputerPartition",
        query_string={
            "computer_reference": NODE,
            "computer_partition_reference": "slappart1",
        },
    )
    assert b"child" in answer.data


def test_a_free_partition_that_asks_is_not_remembered(client: FlaskClient) -> None:
    """It asks for the person; the same form asks for its instance once it has one."""
    client.post("/loadComputerConfigurationFromXML", data=format_form(4))
    form = request_form("a") | CHILD
    for _ in range(2):
        assert ask(client, **form).attributes["root_instance_title"] == "a"
    ask(client, **request_form("b"))
    assert ask(client, **form).attributes["root_instance_title"] == "b"


def test_who_asks_and_from_where_makes_a_difference(tree: FlaskClient) -> None:
    form = request_form()
    plain = tree.post("/requestComputerPartition", data=form)
    secure = tree.post(
        "/requestComputerPartition", data=form, headers={"X-Forwarded-Proto": "https"}
    )
    assert b"http://localhost/" in plain.data
    assert b"https://localhost/" in secure.data
    named = "X-SlapPartition computer_id=computer,computer_partition_id=slappart0"
    child = tree.post("/requestComputerPartition", data=form, headers={"Authorization": named})
    assert RequestedInstance.from_marshalled(loads(child.data)).partition == "slappart2"


def test_a_shared_instance_leaves_a_host_that_has_become_another(client: FlaskClient) -> None:
    client.post("/loadComputerConfigurationFromXML", data=format_form(2))
    ask(client, **request_form())
    shared = request_form("shared", shared=True)
    for _ in range(2):
        ask(client, **shared)
    ask(client, **(request_form() | {"software_type": "other"}))
    answer = client.post("/requestComputerPartition", data=shared)
    assert answer.status_code == 404
    assert "no instance can host the shared instance 'shared'" in answer.text
