"""What surrounds every request of a master: ids, limits, metrics, headers, its log."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.orm import Session

from slapos.master.app import create_app
from slapos.master.database import Database
from slapos.master.identity.caller import ANONYMOUS, Caller, CallerKind
from slapos.master.settings import Profile, Rate, Settings
from slapos.master.tasks.model import TaskState
from slapos.master.tasks.task import sense
from slapos.master.traffic import logs
from slapos.master.traffic.request_id import request_of
from slapos.protocol.errors import Unauthorized
from slapos.system.clock import Clock
from tests.fakes import FakeClock, FakeIdentifiers

TOKEN = "a-token-for-metrics"
SHOWS = "X-Test-Shows"


def authenticate(session: Session, _clock: Clock) -> Caller:
    """Believe what a header shows; `wrong` does not count."""
    from flask import request  # noqa: PLC0415 - of the test's own client

    shown = request.headers.get(SHOWS)
    if shown == "wrong":
        raise Unauthorized("that does not count")
    if shown is None:
        return ANONYMOUS
    return Caller(kind=CallerKind.NODE, name=f"{shown} {request_of(session)}", id=1, project_id=1)


@pytest.fixture
def full(settings: Settings, clock: FakeClock, tmp_path: Path) -> Iterator[Flask]:
    (tmp_path / "metrics_token").write_text(TOKEN + "\n")
    settings = replace(
        settings,
        profile=Profile.FULL,
        rate_limit=Rate(2, 4),
        anonymous_rate_limit=Rate(1, 2),
        metrics_token_file=tmp_path / "metrics_token",
    )
    app = create_app(settings, clock, FakeIdentifiers(), known_by_name)
    yield app
    app.extensions["slapos"].database.close()


def known_by_name(session: Session, clock: Clock) -> Caller:
    found = authenticate(session, clock)
    return replace(found, name=found.name.split()[0])


@pytest.fixture
def asking(full: Flask) -> FlaskClient:
    return full.test_client()


def test_each_answer_has_the_id_of_its_request(asking: FlaskClient) -> None:
    ids = [asking.get("/openapi.json").headers["X-Request-Id"] for _ in range(2)]
    assert len(set(ids)) == 2
    assert asking.get("/v1/nowhere").headers["X-Request-Id"] not in ids


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ("0123-abcd", True),
        ("x" * 64, True),
        ("short", False),
        ("x" * 65, False),
        ("with a space in it", False),
        ('"quoted-text"', False),
    ],
)
def test_an_id_that_is_sent_is_taken_if_it_is_sane(
    asking: FlaskClient, sent: str, taken: bool
) -> None:
    answered = asking.get("/openapi.json", headers={"X-Request-Id": sent})
    assert (answered.headers["X-Request-Id"] == sent) is taken


def test_the_session_knows_its_request(settings: Settings, clock: FakeClock) -> None:
    seen: list[str | None] = []

    def ask(session: Session, clock: Clock) -> Caller:
        seen.append(request_of(session))
        return authenticate(session, clock)

    app = create_app(replace(settings, profile=Profile.FULL), clock, FakeIdentifiers(), ask)
    app.test_client().get("/openapi.json", headers={"X-Request-Id": "0123-abcd"})
    app.extensions["slapos"].database.close()
    assert seen == ["0123-abcd"]


def test_the_description_says_how_to_say_who_one_is(asking: FlaskClient) -> None:
    document = asking.get("/openapi.json").get_json()
    OpenAPIV31SpecValidator(document).validate()
    assert set(document["components"]["securitySchemes"]) >= {"certificate", "token", "session"}
    assert len(document["security"]) == len(document["components"]["securitySchemes"])
    assert document["paths"]["/openapi.json"]["get"]["security"] == []
    assert "security" not in document["paths"]["/v1/audit"]["get"]


def test_who_asks_too_often_is_told_when_to_come_back(
    asking: FlaskClient, clock: FakeClock
) -> None:
    def ask(who: str) -> int:
        return asking.get("/v1/health", headers={SHOWS: who}).status_code

    assert [ask("COMP-1") for _ in range(5)] == [200] * 4 + [429]
    assert ask("COMP-2") == 200
    answer = asking.get("/v1/health", headers={SHOWS: "COMP-1"})
    assert answer.headers["Retry-After"] == "1"
    assert answer.get_json()["error"] == "too_many_requests"
    clock.advance(1)
    assert [ask("COMP-1") for _ in range(3)] == [200] * 2 + [429]


def test_whoever_cannot_say_who_it_is_counts_by_its_address(
    asking: FlaskClient, clock: FakeClock
) -> None:
    def ask(who: str, address: str) -> int:
        environ = {"REMOTE_ADDR": address}
        return asking.get("/v1/audit", headers={SHOWS: who}, environ_base=environ).status_code

    assert [ask("wrong", "2001:db8::1") for _ in range(3)] == [401, 401, 429]
    assert ask("wrong", "2001:db8::2") == 429  # of the same network
    assert ask("wrong", "2001:db8:0:1::1") == 401
    assert ask("COMP-1", "2001:db8::1") == 200  # that others there fail does not hinder it
    clock.advance(1)
    assert [ask("wrong", "2001:db8::1") for _ in range(2)] == [401, 429]


def test_one_who_is_not_known_asks_what_all_may(asking: FlaskClient) -> None:
    assert [asking.get("/openapi.json").status_code for _ in range(3)] == [200, 200, 429]


def test_answers_are_protected(asking: FlaskClient) -> None:
    answer = asking.get("/v1/nowhere", base_url="https://master.example.com/")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
    plain = asking.get("/openapi.json")
    assert "Strict-Transport-Security" not in plain.headers
    assert plain.headers["Cache-Control"] == "private, no-cache"


def metrics(client: FlaskClient, **headers: str) -> dict[str, float]:
    answer = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"} | headers)
    assert answer.status_code == 200
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_requests_are_counted_by_operation(asking: FlaskClient) -> None:
    asking.get("/v1/health", headers={SHOWS: "COMP-1"})
    asking.get("/v1/nowhere")
    asking.open("/v1/health", method="BREW")
    found = metrics(asking)
    assert found["slapos_master_requests_total['200', 'GET', 'health.health']"] == 1
    assert found["slapos_master_requests_total['404', 'GET', 'none']"] == 1
    assert found["slapos_master_requests_total['405', 'none', 'other']"] == 1
    assert found["slapos_master_request_seconds_count['health.health']"] == 1
    assert found["slapos_master_database_connections[]"] == 0
    assert found["slapos_master_database_up[]"] == 1


def test_tasks_are_measured_where_all_processes_see_them(
    asking: FlaskClient, database: Database
) -> None:
    with database.writing.begin() as session:
        session.add(TaskState(name="paint", next_at=None, failures=2, total=7))
        session.flush()
        for key in ("a", "b"):
            sense(session, "paint", key)
    found = metrics(asking)
    assert found["slapos_master_task_done_total['paint']"] == 7
    assert found["slapos_master_task_failures['paint']"] == 2
    assert found["slapos_master_task_waiting['paint']"] == 2


def test_metrics_are_for_who_has_the_token(asking: FlaskClient) -> None:
    """Also on this machine, as there is a token."""
    assert asking.get("/metrics").status_code == 401
    wrong = {"Authorization": "Bearer é"}
    assert asking.get("/metrics", headers=wrong).status_code == 401


def test_without_a_token_metrics_are_for_this_machine(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code == 401
    passed_on = {"X-Forwarded-For": "192.0.2.1"}
    assert client.get("/metrics", headers=passed_on).status_code == 401


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "X-Real-Ip", "Via"]
)
def test_what_a_web_server_in_front_passes_on_is_not_of_this_machine(
    settings: Settings, clock: FakeClock, header: str
) -> None:
    """Also where nobody has said that there is one."""
    settings = replace(settings, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), authenticate)
    client = app.test_client()
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", headers={header: "192.0.2.1"}).status_code == 401
    app.extensions["slapos"].database.close()


def test_a_body_that_is_too_large_is_refused(client: FlaskClient) -> None:
    content = b'{"reports": ["' + b"x" * 1024 * 1024 + b'"]}'
    answer = client.post("/v1/nodes/x/reports", data=content, content_type="application/json")
    assert answer.status_code == 413
    assert answer.get_json()["error"] == "request_entity_too_large"


@pytest.fixture
def logged() -> Iterator[StringIO]:
    """What is logged as JSON meanwhile; pytest has its own handlers, which come back."""
    root = logging.getLogger()
    before, level = root.handlers, root.level
    stream = StringIO()
    logs.configure("json", stream)
    yield stream
    root.handlers = before
    root.setLevel(level)


def test_each_request_is_logged_as_a_line(asking: FlaskClient, logged: StringIO) -> None:
    """Without the question, where somebody may have put a secret."""
    asking.get("/v1/health?token=5ecret", headers={SHOWS: "COMP-1", "X-Request-Id": "0123-abcd"})
    asking.get("/v1/%0aforged%1b[31m%e2%80%a8line")
    first, second = map(json.loads, logged.getvalue().splitlines())
    assert first["request_id"] == "0123-abcd"
    assert first["logger"] == "slapos.master.access"
    assert (first["operation"], first["status"], first["caller"]) == (
        "health.health",
        400,
        "COMP-1",
    )
    assert "5ecret" not in json.dumps(first)
    assert second["message"] == "GET /v1/\nforged\x1b[31m\u2028line 404"
    assert second["caller"] == "unknown"
