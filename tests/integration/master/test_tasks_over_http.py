"""Tasks over HTTP: who may see them and have them done, and that the web server does them."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from slapos.master.app import create_app
from slapos.master.identity.caller import Role
from slapos.master.settings import Profile, Settings
from slapos.protocol.http_client import HttpClient, HttpSettings
from tests.fakes import NOON, FakeClock, FakeIdentifiers
from tests.integration.master.full import World, by_header
from tests.integration.master.web_server import served

RUN = "/v1/tasks/forget_taken_reports/run"


@pytest.fixture
def world(settings: Settings, clock: FakeClock) -> Iterator[World]:
    settings = Settings(database_url=settings.database_url, profile=Profile.FULL)
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    world = World(app)
    with world.session() as session:
        world.person(session, 40, (None, Role.ADMINISTRATOR))
        world.person(session, 41, (None, Role.PRODUCTION_MANAGER))
        session.commit()
    yield world
    app.extensions["slapos"].database.close()


def shown(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/v1/tasks")
    assert answer.status_code == 200, answer.text
    return {each["name"]: each for each in answer.get_json()["tasks"]}


def test_a_task_waits_until_it_is_done(client: FlaskClient) -> None:
    before = shown(client)["forget_taken_reports"]
    assert (before["waiting"], before["next_at"], before["began_at"]) == (0, None, None)
    assert client.post(RUN).status_code == 202
    assert client.post(RUN).status_code == 202
    assert shown(client)["forget_taken_reports"]["waiting"] == 2
    answer = client.post("/v1/tasks/no_such_task/run")
    assert answer.status_code == 404
    assert "there is no task 'no_such_task'" in answer.text


def test_the_web_server_does_what_it_senses(app: Flask) -> None:
    with served(app) as port:
        http = HttpClient(HttpSettings(base_url=f"http://127.0.0.1:{port}"))
        http.request("POST", RUN)
        deadline = time.monotonic() + 60
        while True:
            found = shown(app.test_client())["forget_taken_reports"]
            if found["began_at"] and not found["waiting"] and found["next_at"] > found["began_at"]:
                break
            assert time.monotonic() < deadline
            time.sleep(0.01)
        http.close()
    assert found["began_at"] == NOON.isoformat()
    assert found["error"] == ""


def test_who_may_see_tasks_and_have_them_done(world: World) -> None:
    statuses = {
        who: (
            world.as_(who).get("/v1/tasks").status_code,
            world.as_(who).post(RUN).status_code,
            world.as_(who).post("/v1/tasks/no_such_task/run").status_code,
        )
        for who in ("P-40", "P-41", "P-21", "P-11", "COMP-1")
    }
    assert statuses == {
        "P-40": (200, 202, 404),
        "P-41": (200, 403, 403),
        "P-21": (404, 404, 404),
        "P-11": (404, 404, 404),
        "COMP-1": (404, 404, 404),
    }
    assert world.app.test_client().get("/v1/tasks").status_code == 401
