"""What a node tells in one go: in order, each once, and a bad one alone is refused."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, func, select
from werkzeug.test import TestResponse

from slapos.master.app import create_app
from slapos.master.doctor.at_work import check_left
from slapos.master.nodes import operate
from slapos.master.nodes import service as nodes
from slapos.master.nodes.model import TakenReport
from slapos.master.settings import Settings
from slapos.protocol.tree_status import InstanceStatus, Phase, TreeStatus
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers
from tests.fakes import NOON, FakeClock
from tests.integration.master.factories import NODE, URL, format_form, request_form

PATH = f"/v1/nodes/{NODE}/reports"
_numbers = count(1)


def report(kind: str, **fields: Any) -> dict[str, Any]:
    return {"id": f"{next(_numbers):032x}", "at": NOON.isoformat(), "kind": kind, **fields}


def started(partition: str = "slappart0", **fields: Any) -> dict[str, Any]:
    return report("instance", partition=partition, state="started", error=None, **fields)


def failed(error: str, partition: str = "slappart0", **fields: Any) -> dict[str, Any]:
    return report("instance", partition=partition, state=None, error=error, **fields)


def send(client: FlaskClient, *reports: dict[str, Any]) -> TestResponse:
    return client.post(PATH, json={"reports": reports})


def told(client: FlaskClient, *reports: dict[str, Any]) -> tuple[list[str], list[dict[str, str]]]:
    answer = send(client, *reports)
    assert answer.status_code == 200, answer.text
    body = answer.get_json()
    return body["taken"], body["refused"]


def status(client: FlaskClient, title: str = "root") -> InstanceStatus:
    return TreeStatus.from_json(client.get(f"/v1/instance-trees/{title}").get_json()).root


@pytest.fixture
def master(client: FlaskClient) -> FlaskClient:
    """A master with a release that is wanted, and two instances of it."""
    client.post("/loadComputerConfigurationFromXML", data=format_form(3))
    client.post("/supplySupply", data={"url": URL, "computer_id": NODE})
    for title in ("root", "other"):
        client.post("/requestComputerPartition", data=request_form(title))
    return client


@pytest.fixture
def app(settings: Settings, clock: FakeClock):  # type: ignore[no-untyped-def]
    app = create_app(settings, clock, SystemIdentifiers())
    yield app
    app.extensions["slapos"].database.close()


def test_a_node_tells_everything_in_one_go(master: FlaskClient, clock: FakeClock) -> None:
    clock.advance(100)
    batch = [
        report("release", url=URL, state="building", message=""),
        report("release", url=URL, state="available", message=""),
        started(),
        failed("Promise 'port' failed with: closed", "slappart1"),
        report("related_instances", partition="slappart0", titles=["a", "b"]),
        report("usage", document="<journal/>"),
    ]
    assert told(master, *batch) == ([each["id"] for each in batch], [])
    assert status(master).phase is Phase.HEALTHY
    assert status(master, "other").phase is Phase.PROMISING
    node = master.get(f"/v1/nodes/{NODE}").get_json()
    assert node["installations"][0]["reported_state"] == "available"
    assert node["contacted_at"] == clock.now().isoformat()


def test_what_a_node_finds_that_we_do_not_know_is_shown(
    master: FlaskClient, app: Flask, clock: FakeClock
) -> None:
    def left() -> list[dict[str, str] | None]:
        shown = master.get(f"/v1/nodes/{NODE}/partitions").get_json()["partitions"]
        return [each["left"] for each in shown]

    token = master.get(f"/v1/nodes/{NODE}/changes").get_json()["token"]
    fields = {"partition": "slappart2", "title": "old", "since": NOON.isoformat()}
    occupied = report("occupant", instance="SOFTINST-9", **fields)
    assert told(master, occupied) == ([occupied["id"]], [])
    found = {"instance": "SOFTINST-9", "title": "old", "since": NOON.isoformat()}
    assert left() == [None, None, found]
    # It is no news to the node that says so.
    assert master.get(f"/v1/nodes/{NODE}/changes").get_json()["token"] == token
    with app.extensions["slapos"].database.reading() as session:
        node = nodes.find_node(session, NODE)
        assert operate.left_instances(session, node.id) == {"slappart2": "SOFTINST-9 (old)"}
        settings = app.extensions["slapos"].settings
        (finding,) = check_left(session, settings, clock)
        assert "SOFTINST-9 in computer slappart2" in finding.found
    gone = report("occupant", partition="slappart2", instance="")
    unknown = report("occupant", partition="slappart9", instance="x")
    assert told(master, gone, unknown)[0] == [gone["id"]]
    assert left() == [None, None, None]


def test_what_is_told_means_what_the_slap_call_means(master: FlaskClient) -> None:
    """Also about an older timestamp, which settles nothing."""
    told(master, report("release", url=URL, state="available"))
    place = {"computer_id": NODE, "computer_partition_id": "slappart0"}
    told(master, started(timestamp="12.5"))
    by_report = status(master)
    master.post("/startedComputerPartition", data={**place, "timestamp": "12.5"})
    assert status(master) == by_report
    assert by_report.phase is Phase.INSTANTIATING


def test_a_bad_report_does_not_lose_the_others(master: FlaskClient) -> None:
    bad = {
        "there is no kind 'gossip' of report": report("gossip"),
        "there is no kind None of report": {"id": "0" * 32},
        "'url' is a required property": report("release", state="available"),
        "'gone' is not one of": report("release", url=URL, state="gone"),
        "is not wanted on the node": report("release", url="https://no.org/", state="building"),
        "it has neither a state nor an error": report("instance", partition="slappart0"),
        "5 is not of type 'string'": report("instance", partition=5, state="started"),
        "the partition 'slappart2' of the node 'computer' is free": started("slappart2"),
        "has no partition 'nowhere'": started("nowhere"),
        "'soon' is no timestamp": started(timestamp="soon"),
        "no time in ISO 8601": started(since="yesterday"),
        "in which time zone": started(since="2026-03-01T12:00:00"),
    }
    good = report("release", url=URL, state="available"), started()
    taken, refused = told(master, good[0], *bad.values(), good[1])
    assert taken == [each["id"] for each in good]
    assert [each["id"] for each in refused] == [each["id"] for each in bad.values()]
    for reason, each in zip(bad, refused, strict=True):
        assert reason in each["message"]
        assert each["code"] in ("invalid", "not_found")
    assert status(master).phase is Phase.HEALTHY


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 100_000])
def test_no_text_is_too_odd_to_be_taken(master: FlaskClient, text: str) -> None:
    """A report that could never be stored would be sent for ever."""
    bad = report("instance", partition=text, state="started")
    good = failed(text), report("release", url=URL, state="error", message=text)
    taken, refused = told(master, bad, *good)
    assert taken == [each["id"] for each in good]
    assert [each["id"] for each in refused] == [bad["id"]]
    assert status(master).message


def test_a_report_counts_once(master: FlaskClient) -> None:
    """When the answer was lost, the same batch comes again, perhaps with more."""
    told(master, report("release", url=URL, state="available"))
    first, second = failed("broken"), started()
    told(master, first, second)
    assert told(master, first, first, second) == ([first["id"]] * 2 + [second["id"]], [])
    assert status(master).phase is Phase.HEALTHY


def test_another_node_may_use_the_same_identifier(master: FlaskClient) -> None:
    master.post("/requestComputer", data={"computer_title": "second"})
    same = report("usage", document="<journal/>")
    told(master, same)
    answer = master.post("/v1/nodes/second/reports", json={"reports": [same]})
    assert answer.get_json()["taken"] == [same["id"]]
    assert _taken(master.application) == 2


def test_what_is_refused_may_be_right_another_time(master: FlaskClient) -> None:
    early = started("slappart2")
    assert told(master, early)[0] == []
    master.post("/requestComputerPartition", data=request_form("third"))
    assert told(master, early)[0] == [early["id"]]


def test_since_when_is_kept(master: FlaskClient, clock: FakeClock) -> None:
    """The node's word, but never the future; and the same again changes nothing."""
    told(master, report("release", url=URL, state="available"))
    clock.advance(3600)
    told(master, failed("broken", since="2026-03-01T13:30:00+01:00"))
    assert status(master).since == "2026-03-01T12:30:00+00:00"
    clock.advance(60)
    told(master, failed("broken"))
    assert status(master).since == "2026-03-01T12:30:00+00:00"
    told(master, started(since="2030-01-01T00:00:00Z"))
    assert status(master).since == clock.now().isoformat()
    before = clock.now()
    clock.advance(60)
    place = {"computer_id": NODE, "computer_partition_id": "slappart0"}
    master.post("/startedComputerPartition", data=place)
    assert status(master).since == before.isoformat()
    master.post("/softwareInstanceError", data={**place, "error_log": "broken again"})
    assert status(master).since == clock.now().isoformat()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("[", "no JSON document"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "is not of type 'object'"),
        ("{}", "'reports' is a required property"),
        ('{"reports": [{"id": "1"}]}', "does not match"),
        ('{"reports": [{}]}', "'id' is a required property"),
        (json.dumps({"reports": [{"id": "0" * 32}] * 101}), "101 reports come in one go"),
    ],
    ids=range(7),
)
def test_a_batch_that_is_none_is_refused(master: FlaskClient, body: str, reason: str) -> None:
    answer = master.post(PATH, data=body, content_type="application/json")
    assert answer.status_code == 400
    assert reason in answer.get_json()["message"]


def test_a_batch_that_is_too_large_is_refused(master: FlaskClient) -> None:
    answer = send(master, failed("x" * (1024 * 1024)))
    assert (answer.status_code, answer.get_json()["error"]) == (413, "request_entity_too_large")


def test_an_unknown_node_is_named(master: FlaskClient) -> None:
    answer = master.post("/v1/nodes/nobody/reports", json={"reports": []})
    assert answer.status_code == 404
    assert "there is no node 'nobody'" in answer.get_json()["message"]


def test_a_commit_that_fails_leaves_nothing_taken(master: FlaskClient, app: Flask) -> None:
    sessions = app.extensions["slapos"].database.writing

    def fail(session: Any) -> None:
        if not session.in_nested_transaction():
            raise RuntimeError("killed here")

    event.listen(sessions, "before_commit", fail)
    batch = report("release", url=URL, state="available"), started()
    assert send(master, *batch).status_code == 500
    event.remove(sessions, "before_commit", fail)
    assert _taken(app) == 0
    assert status(master).phase is Phase.BUILDING
    assert told(master, *batch) == ([each["id"] for each in batch], [])


def test_the_node_is_told_although_a_later_report_was_refused(master: FlaskClient) -> None:
    """The undone savepoint takes nothing along of what was counted before it."""
    url = f"/getFullComputerInformation?computer_id={NODE}"
    before = master.get(url).data
    told(master, failed("broken"), started("nowhere"))
    assert master.get(url).data != before


def test_two_processes_that_get_the_same_batch_count_it_once(settings: Settings) -> None:
    apps = [create_app(settings, SystemClock(), SystemIdentifiers()) for _ in range(2)]
    first = apps[0].test_client()
    first.post("/loadComputerConfigurationFromXML", data=format_form(3))
    batch = [report("usage", document=str(number)) for number in range(20)]
    barrier = Barrier(8)

    def run(number: int) -> TestResponse:
        barrier.wait(30)
        return send(apps[number % 2].test_client(), *batch)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(run, range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert {len(answer.get_json()["taken"]) for answer in answers} == {20}
    assert _taken(apps[0]) == 20
    for app in apps:
        app.extensions["slapos"].database.close()


def _taken(app: Flask) -> int:
    with app.extensions["slapos"].database.reading() as session:
        return session.scalar(select(func.count()).select_from(TakenReport)) or 0
