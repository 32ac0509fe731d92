"""What a node says of many instances at once is what it would say of each, and is written once."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, select

from slapos.master.app import create_app
from slapos.master.http import Assembly
from slapos.master.nodes.model import NodeExchange
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.reported import Reported
from slapos.master.settings import Settings
from tests.fakes import NOON, FakeClock, FakeIdentifiers
from tests.integration.master.factories import NODE, format_form, request_form

PATH = f"/v1/nodes/{NODE}/reports"
SIZE = 20
BY_ID = select(SoftwareInstance).order_by(SoftwareInstance.id)
_numbers = count(1)


def about(number: int, **fields: Any) -> dict[str, Any]:
    """Return a report on the instance in a partition."""
    return {
        "id": f"{next(_numbers):032x}",
        "at": NOON.isoformat(),
        "kind": "instance",
        "partition": f"slappart{number}",
        "state": None,
        "error": None,
        **fields,
    }


def send(client: FlaskClient, *reports: dict[str, Any]) -> list[str]:
    answer = client.post(PATH, json={"reports": reports})
    assert answer.status_code == 200, answer.text
    body = answer.get_json()
    assert body["refused"] == []
    taken: list[str] = body["taken"]
    assert taken == [each["id"] for each in reports]
    return taken


@pytest.fixture
def node(client: FlaskClient) -> FlaskClient:
    """A node that is full of instances."""
    client.post("/loadComputerConfigurationFromXML", data=format_form(SIZE))
    for number in range(SIZE):
        client.post("/requestComputerPartition", data=request_form(f"service {number}"))
    return client


@pytest.fixture
def statements(app: Flask) -> Iterator[list[str]]:
    """What the database has been asked."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "pg_notify" not in statement:  # a thread of its own tells others
            found.append(statement)

    engine = app.extensions["slapos"].database.engine
    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


def known(app: Flask) -> dict[int, Reported]:
    parts: Assembly = app.extensions["slapos"]
    with parts.database.reading() as session:
        return {each.id: each.reported for each in session.scalars(BY_ID)}


def version(app: Flask) -> int:
    parts: Assembly = app.extensions["slapos"]
    with parts.database.reading() as session:
        return session.scalars(select(NodeExchange.version)).one()


SAYINGS: dict[str, list[dict[str, Any]]] = {
    "started": [{"state": "started"}],
    "failed": [{"error": "broken"}],
    "both": [{"state": "started", "error": "a promise fails"}],
    "one after the other": [{"error": "broken"}, {"state": "started"}, {"error": "again"}],
    "since": [{"state": "started", "since": "2026-02-28T12:00:00+01:00"}],
    "since the future": [{"state": "stopped", "since": "2030-01-01T00:00:00Z"}],
    "of another order": [{"state": "started", "timestamp": "12.5"}],
    "odd text": [{"error": "a\0b\ud800"}],
    "the same again": [{"state": "started"}, {"state": "started"}],
}


@pytest.mark.parametrize("what", SAYINGS)
def test_it_is_what_each_report_by_itself_says(
    node: FlaskClient, app: Flask, clock: FakeClock, what: str
) -> None:
    """The one is said in a batch, the other by the calls that slapos.core's node makes."""
    send(node, *(about(0, **fields) for fields in SAYINGS[what]))
    place = {"computer_id": NODE, "computer_partition_id": "slappart1"}
    if not any("since" in fields for fields in SAYINGS[what]):
        for fields in SAYINGS[what]:
            more = {"timestamp": fields["timestamp"]} if "timestamp" in fields else {}
            if "state" in fields:
                node.post("/startedComputerPartition", data=place | more)
            if "error" in fields:
                log = fields["error"].encode(errors="backslashreplace").decode()
                node.post("/softwareInstanceError", data=place | {"error_log": log})
        first, second, *_ = known(app).values()
        assert first == second
    else:
        (first, *_) = known(app).values()
        assert first.since is not None
        assert first.since <= clock.now()


def test_many_take_as_many_statements_as_few(node: FlaskClient, statements: list[str]) -> None:
    send(node, *(about(number, state="started") for number in range(2)))
    statements.clear()
    send(node, *(about(number, error="broken") for number in range(2)))
    few = len(statements)
    statements.clear()
    send(node, *(about(number, error="broken again") for number in range(SIZE)))
    assert len(statements) == few


def test_what_is_said_again_is_not_written_again(
    node: FlaskClient, app: Flask, clock: FakeClock, statements: list[str]
) -> None:
    everything = [about(number, state="started") for number in range(SIZE)]
    send(node, *everything)
    before, told = known(app), version(app)
    clock.advance(30)
    statements.clear()
    send(node, *(about(number, state="started") for number in range(SIZE)))
    assert not any(each.startswith("UPDATE software_instances") for each in statements)
    assert known(app) == before
    clock.advance(31)
    send(node, *(about(number, state="started") for number in range(SIZE)))
    assert {each.at for each in known(app).values()} == {clock.now()}
    assert {each.since for each in known(app).values()} == {NOON}
    assert version(app) == told  # nobody is told anything else


def test_a_report_that_comes_again_does_not_undo_what_came_since(
    node: FlaskClient, app: Flask
) -> None:
    first = [about(number, error="broken") for number in range(3)]
    send(node, *first)
    send(node, *(about(number, state="started") for number in range(3)))
    send(node, *first, about(3, state="started"))
    assert [each.error for each in known(app).values()] == [""] * SIZE


def test_what_is_wrong_with_one_keeps_no_other_back(node: FlaskClient, app: Flask) -> None:
    wrong = [
        about(0, state="gone"),
        about(1, state="started", since="soon"),
        about(77, state="started"),
    ]
    right = [about(number, error="broken") for number in range(5)]
    answer = node.post(PATH, json={"reports": [*wrong, *right]}).get_json()
    assert answer["taken"] == [each["id"] for each in right]
    assert [each["id"] for each in answer["refused"]] == [each["id"] for each in wrong]
    assert [each.error for each in known(app).values()][:6] == ["broken"] * 5 + [""]


@pytest.mark.parametrize("database_uri", ["postgresql"], indirect=True)
def test_who_changes_an_instance_meanwhile_has_it_taken_in_anew(
    node: FlaskClient, app: Flask, settings: Settings, clock: FakeClock
) -> None:
    """Between the look and the write another process orders something else."""
    other = create_app(settings, clock, FakeIdentifiers())
    left = [1]

    def change(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if left and "INSERT INTO taken_reports" in statement:
            left.pop()
            other.test_client().post(
                "/requestComputerPartition", data=request_form("service 0", parameters={"a": "b"})
            )

    engine = app.extensions["slapos"].database.engine
    event.listen(engine, "before_cursor_execute", change)
    clock.advance(1)
    send(node, *(about(number, state="started") for number in range(3)))
    event.remove(engine, "before_cursor_execute", change)
    other.extensions["slapos"].database.close()
    assert left == []
    parts: Assembly = app.extensions["slapos"]
    with parts.database.reading() as session:
        found = session.scalars(BY_ID).first()
        assert found is not None
        assert (found.parameters, found.reported_state) == ({"a": "b"}, "started")
        assert found.reported_for == found.changed_at


def test_a_host_that_is_well_says_so_of_its_shared_instances(node: FlaskClient, app: Flask) -> None:
    form = request_form("shared", shared=True)
    answer = node.post("/requestComputerPartition", data=form)
    assert answer.status_code == 200, answer.text
    parts: Assembly = app.extensions["slapos"]
    with parts.database.writing() as session:
        shared = session.scalars(select(SoftwareInstance).where(SoftwareInstance.shared)).one()
        shared.error = "broken"
        session.commit()
    send(node, *(about(number, state="started") for number in range(SIZE)))
    assert {each.error for each in known(app).values()} == {""}
