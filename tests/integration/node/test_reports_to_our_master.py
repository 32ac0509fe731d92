"""Reports to our own master, over HTTP: what it makes of them, also when its answers are lost."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select
from werkzeug.serving import WSGIRequestHandler, make_server

from slapos.master.nodes.model import TakenReport
from slapos.node.report.journal import Journal
from slapos.node.report.reports import Reports
from slapos.node.report.sender import Sender
from slapos.protocol.errors import MasterFailed
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.slap_client import SlapClient
from slapos.protocol.states import InstanceState
from slapos.protocol.tree_status import InstanceStatus, Phase, TreeStatus
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers
from tests.fakes import NOON
from tests.integration.master.factories import NODE, URL, format_form, request_form

Answer = Iterable[bytes]


class Silent(WSGIRequestHandler):
    def log(self, *_arguments: Any) -> None:
        return


class LosingAnswers:
    """Has the application do its work; then loses so many of its answers."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self.losses = 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Answer:
        if not self.losses:
            return self._app(environ, start)
        self.losses -= 1
        list(self._app(environ, lambda *_arguments: lambda _data: None))
        start("502 Bad Gateway", [("Content-Length", "0")])
        return [b""]


@pytest.fixture
def losing(app: Flask, client: FlaskClient) -> LosingAnswers:
    """A master with a release that is wanted, and two instances of it."""
    client.post("/loadComputerConfigurationFromXML", data=format_form(3))
    client.post("/supplySupply", data={"url": URL, "computer_id": NODE})
    for title in ("root", "other"):
        client.post("/requestComputerPartition", data=request_form(title))
    return LosingAnswers(app)


@pytest.fixture
def reports(losing: LosingAnswers, tmp_path: Any) -> Iterator[Reports]:
    server = make_server("127.0.0.1", 0, losing, threaded=True, request_handler=Silent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    clock, chance = SystemClock(), SystemIdentifiers()
    journal = Journal(tmp_path / "journal.db", clock, chance)
    http = HttpClient(HttpSettings(base_url=f"http://127.0.0.1:{server.server_port}"))
    try:
        yield Reports(journal, Sender(NODE, journal, SlapClient(http), clock), clock, chance)
    finally:
        http.close()
        journal.close()
        server.shutdown()
        thread.join()
        server.server_close()


def status(client: FlaskClient, title: str) -> InstanceStatus:
    return TreeStatus.from_json(client.get(f"/v1/instance-trees/{title}").get_json()).root


def taken(app: Flask) -> int:
    with app.extensions["slapos"].database.reading() as session:
        count: int = session.scalar(select(func.count()).select_from(TakenReport))
        return count


def test_all_kinds_are_understood(app: Flask, client: FlaskClient, reports: Reports) -> None:
    reports.available(URL)
    reports.state("slappart0", InstanceState.STARTED)
    reports.instance_error("slappart1", "Promise 'works' failed with output: \udc80 no\x00t yet")
    reports.related_instances("slappart0", ["a"])
    works = {"name": "works", "title": "works", "failed": True, "message": "no\udc80\x00t yet"}
    reports.promises("slappart1", f"{NODE}-slappart1", [{**works, "at": NOON.isoformat()}])
    reports.promises("slappart0", "of another instance", [works])
    reports.usage([("0" * 32, "<journal/>")])
    assert reports.flush() == []
    assert reports.waiting().count == 0
    assert status(client, "root").phase is Phase.HEALTHY
    assert "Promise 'works' failed" in str(status(client, "other"))
    assert taken(app) == 6
    shown = client.get(f"/v1/instances/{NODE}-slappart1/promises").get_json()
    assert [(each["name"], each["failed"]) for each in shown["promises"]] == [("works", True)]


def test_lost_answers_count_nothing_twice(
    app: Flask, client: FlaskClient, losing: LosingAnswers, reports: Reports
) -> None:
    reports.available(URL)
    reports.state("slappart0", InstanceState.STARTED)
    reports.usage([(f"{number:032x}", "<journal/>") for number in range(5)])
    losing.losses = 2
    with pytest.raises(MasterFailed):
        reports.flush()
    reports.instance_error("slappart0", "it broke meanwhile")
    reports.flush()
    assert reports.waiting().count == 0
    assert taken(app) == 8
    assert "it broke meanwhile" in str(status(client, "root"))


def test_what_is_refused_is_named(client: FlaskClient, reports: Reports) -> None:
    reports.state("slappart2", InstanceState.STARTED)
    reports.state("slappart0", InstanceState.STARTED)
    reports.available("http://example.com/never/ordered")
    refused = reports.flush()
    assert len(refused) == 2
    assert "slappart2 (instance)" in refused[0]
    assert reports.waiting().count == 0
    assert status(client, "root").phase is not Phase.PROMISING
