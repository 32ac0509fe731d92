"""Requests that another master answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import pytest
from flask import Flask
from flask.testing import FlaskClient

from slapos.master.app import create_app
from slapos.master.provisioning import forwarded
from slapos.master.settings import OtherMaster, Settings
from slapos.protocol.marshal import Marshalled, dumps, loads
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.test_hateoas import format_node

RELEASE = "https://example.org/far/software.cfg"

Asked = dict[str, str]


@contextmanager
def other_master(answer: Callable[[Asked], tuple[int, Any]]) -> Iterator[str]:
    """Serve a master that answers every request with `answer` of its form."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            status, told = answer(form)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(dumps(told) if status == 200 else str(told).encode())

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def our_master(tmp_path: Path, *others: OtherMaster) -> Iterator[Flask]:
    settings = Settings(
        database_url=f"sqlite:///{tmp_path}/master.db", port=5123, other_masters=others
    )
    app = create_app(settings, FakeClock(), FakeIdentifiers())
    format_node(app.test_client(), 1)
    yield app
    app.extensions["slapos"].database.close()


def given(_asked: Asked) -> tuple[int, Any]:
    state = {
        "_connection_dict": {"url": "http://far/"},
        "_instance_guid": "far-1",
        "_parameter_dict": {"timestamp": "1"},
        "_requested_state": "started",
        "slap_computer_id": "far",
        "slap_computer_partition_id": "slappart7",
    }
    return 200, Marshalled("SoftwareInstance", (), state)


def form(**more: Any) -> dict[str, Any]:
    fields = {"state": "started", "filter_xml": {}, "partition_parameter_xml": {"a": "b"}} | more
    return {
        "software_release": RELEASE,
        "software_type": "default",
        "partition_reference": "web",
        "shared_xml": dumps(False).decode(),
        **{name: dumps(value).decode() for name, value in fields.items()},
    }


def order(client: FlaskClient, status: int = 200, **more: Any) -> Any:
    response = client.post("/requestComputerPartition", data=form(**more))
    assert response.status_code == status, response.text
    return loads(response.data) if status == 200 else response.text


def remembered(app: Flask) -> list[tuple[str, str]]:
    with app.extensions["slapos"].database.reading() as session:
        return [(f.title, f.master_url) for f in forwarded.forwarded(session)]


def test_a_listed_release_is_asked_of_its_master(tmp_path: Path) -> None:
    asked: list[Asked] = []

    def answer(request: Asked) -> tuple[int, Any]:
        asked.append(request)
        return given(request)

    with (
        other_master(answer) as url,
        our_master(tmp_path, OtherMaster(url=url, release_urls=(RELEASE,))) as app,
    ):
        told = order(app.test_client())
        assert told.state["_connection_dict"] == {"url": "http://far/"}
        assert told.state["_master_url"] == url
        assert asked[0]["partition_reference"] == "user_web"
        assert loads(asked[0]["filter_xml"].encode()) == {"source_instance_id": "user_web"}
        assert remembered(app) == [("user_web", url)]
        order(app.test_client(), state="destroyed")
        assert remembered(app) == []


def test_a_request_on_behalf_of_a_partition_there(tmp_path: Path) -> None:
    asked: list[Asked] = []

    def answer(request: Asked) -> tuple[int, Any]:
        asked.append(request)
        return given(request)

    with other_master(answer) as url:
        other = OtherMaster(url=url, node="far", partition="slappart0")
        with our_master(tmp_path, other) as app:
            order(app.test_client(), filter_xml={"master_url": url, "colour": "red"})
    assert (asked[0]["computer_id"], asked[0]["computer_partition_id"]) == ("far", "slappart0")
    assert loads(asked[0]["filter_xml"].encode()) == {"colour": "red"}


def test_no_transaction_is_open_while_another_master_is_asked(tmp_path: Path) -> None:
    """It asks us back to change something, which would wait for a transaction of ours."""
    apps: list[Flask] = []

    def answer(request: Asked) -> tuple[int, Any]:
        supply = {"url": RELEASE, "computer_id": "computer"}
        assert apps[0].test_client().post("/supplySupply", data=supply).status_code == 200
        return given(request)

    with (
        other_master(answer) as url,
        our_master(tmp_path, OtherMaster(url=url, release_urls=(RELEASE,))) as app,
    ):
        apps.append(app)
        order(app.test_client())


def test_what_is_here_already_stays_here(tmp_path: Path) -> None:
    with other_master(given) as url, our_master(tmp_path, OtherMaster(url=url)) as app:
        order(app.test_client())
        told = order(app.test_client(), filter_xml={"master_url": url})
        assert told.state["slap_computer_id"] == "computer"


@pytest.mark.parametrize("url", ["http://localhost/", "http://127.0.0.1:5123"])
def test_naming_this_master_forwards_nothing(tmp_path: Path, url: str) -> None:
    with our_master(tmp_path) as app:
        told = order(app.test_client(), filter_xml={"master_url": url})
        assert told.state["slap_computer_id"] == "computer"


def test_a_master_that_is_not_listed_is_refused_with_the_reason(tmp_path: Path) -> None:
    with our_master(tmp_path) as app:
        reason = order(app.test_client(), 404, filter_xml={"master_url": "http://far.example"})
        assert "[multimaster/http://far.example]" in reason


def test_a_master_by_https_needs_a_key(tmp_path: Path) -> None:
    other = OtherMaster(url="https://far.example", release_urls=(RELEASE,))
    with our_master(tmp_path, other) as app:
        assert "needs key and cert" in order(app.test_client(), 404)


@pytest.mark.parametrize(("theirs", "ours"), [(408, 408), (404, 404), (403, 403), (500, 502)])
def test_a_refusal_is_passed_on_with_its_reason(tmp_path: Path, theirs: int, ours: int) -> None:
    with (
        other_master(lambda _asked: (theirs, "all partitions are busy")) as url,
        our_master(tmp_path, OtherMaster(url=url, release_urls=(RELEASE,))) as app,
    ):
        assert "all partitions are busy" in order(app.test_client(), ours)
        assert remembered(app) == []


def test_a_master_out_of_reach_is_told_from_our_own_failures(tmp_path: Path) -> None:
    other = OtherMaster(url="http://127.0.0.1:9", release_urls=(RELEASE,))
    with our_master(tmp_path, other) as app:
        assert "127.0.0.1:9" in order(app.test_client(), 523)
        body = {"title": "web", "software_release_uri": RELEASE, "software_type": "default"}
        answer = app.test_client().post("/slapos.post.v0.software_instance", json=body)
        assert answer.status_code == 523
        assert answer.get_json()["status"] == 523
