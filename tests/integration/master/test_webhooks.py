"""Webhooks: what happens is told, signed, in its order, at least once, to where it may be."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from slapos.master.app import create_app
from slapos.master.identity.model import Person, PersonState
from slapos.master.settings import Profile, Settings
from slapos.master.tasks.model import TaskMark
from slapos.master.tasks.registry import TASKS
from slapos.master.tasks.runner import Runner
from slapos.master.tasks.worker import Doors, make_rows
from slapos.master.webhooks.model import Webhook, WebhookDelivery
from slapos.master.webhooks.outbox import DELIVER
from slapos.master.webhooks.sending import signature
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.factories import request_form
from tests.integration.master.full import World, by_header

DAY = 24 * 3600


class Listener:
    """A server that is told, and answers with `status`."""

    def __init__(self) -> None:
        self.status = 204
        self.told: list[tuple[dict[str, str], bytes]] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                listener.told.append((dict(self.headers), content))
                self.send_response(listener.status)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()

            def log_message(self, *_told: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server.server_port}/hook?a=1"

    def types(self) -> list[str]:
        return [json.loads(content)["type"] for _, content in self.told]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    yield found
    found.stop()


@pytest.fixture
def world(
    database_uri: str, settings: Settings, clock: FakeClock, tmp_path: Path
) -> Iterator[World]:
    secret_file = tmp_path / "secret"
    secret_file.write_text("x" * 64)
    secret_file.chmod(0o600)
    settings = Settings(
        database_url=settings.database_url,
        profile=Profile.FULL,
        secret_file=secret_file,
        webhook_networks=(ip_network("127.0.0.0/8"), ip_network("::1/128")),
    )
    app = create_app(settings, clock, FakeIdentifiers(), by_header)
    yield World(app)
    app.extensions["slapos"].database.close()


@pytest.fixture
def runner(world: World) -> Runner:
    parts = world.parts
    doors = Doors(
        database=parts.database,
        clock=parts.clock,
        identifiers=parts.identifiers,
        settings=parts.settings,
        policy=parts.policy,
    )
    chosen = {DELIVER: replace(TASKS[DELIVER], every=None)}
    make_rows(doors, chosen)
    return Runner(doors, chosen)


def settle(runner: Runner) -> None:
    for _ in range(50):
        if runner.round():
            return
    raise AssertionError("it never comes to an end")


def made(world: World, listener: Listener, who: str = "P-11", **fields: Any) -> dict[str, Any]:
    body = {"project": "PROJ-1", "url": listener.url, "events": ["*"]} | fields
    answer = world.as_(who).post("/v1/webhooks", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.get_json()
    return found


def order(world: World, title: str, who: str = "P-11", project: str | None = None) -> None:
    form = request_form(title) | ({"project_reference": project} if project else {})
    answer = world.as_(who).post("/requestComputerPartition", data=form)
    assert answer.status_code in (200, 408), answer.text


def change(world: World, hook: dict[str, Any], who: str = "P-11", **body: Any) -> TestResponse:
    return world.as_(who).patch(f"/v1/webhooks/{hook['reference']}", json=body)


def shown(world: World, hook: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = world.as_("P-11").get(f"/v1/webhooks/{hook['reference']}").get_json()
    return found


def history(world: World, hook: dict[str, Any]) -> list[dict[str, Any]]:
    answer = world.as_("P-11").get(f"/v1/webhooks/{hook['reference']}/deliveries")
    found: list[dict[str, Any]] = answer.get_json()["deliveries"]
    return found


def test_what_happens_is_told_once_and_signed(
    world: World, listener: Listener, runner: Runner
) -> None:
    hook = made(world, listener, events=["instance_tree.create", "instance.*"])
    assert hook["secret"].startswith("whsec_")
    order(world, "web")
    settle(runner)
    settle(runner)
    assert sorted(listener.types()) == ["instance.create", "instance_tree.create"]
    headers, content = listener.told[0]
    message_id, timestamp = headers["Webhook-Id"], int(headers["Webhook-Timestamp"])
    assert headers["Webhook-Signature"] == signature(hook["secret"], message_id, timestamp, content)
    assert headers["Host"] == listener.url.split("/")[2]
    told = json.loads(content)
    assert told["data"]["caller"] == "P-11"
    assert told["data"]["changes"]["title"] == [None, "web"]
    found = history(world, hook)
    assert [(each["state"], each["status"], each["attempts"]) for each in found] == [
        ("delivered", 204, 1)
    ] * 2
    assert {each["id"] for each in found} == {headers["Webhook-Id"] for headers, _ in listener.told}


def test_the_secret_is_told_once_and_kept_encrypted(world: World, listener: Listener) -> None:
    hook = made(world, listener)
    assert "secret" not in shown(world, hook)
    with world.session() as session:
        webhook = session.scalars(select(Webhook)).one()
    assert hook["secret"] not in webhook.sealed_secret
    audit = world.as_("P-11").get("/v1/audit?limit=500").text
    assert hook["secret"] not in audit
    assert "/hook" not in audit  # there may be a word in the URL that opens a door


def test_each_is_told_what_it_may_see(world: World, listener: Listener, runner: Runner) -> None:
    """Customers theirs, managers all of the project; nobody another project's."""
    order_events = ["instance_tree.create"]
    customer = made(world, listener, events=order_events)
    manager = made(world, listener, who="P-21", events=order_events)
    order(world, "mine")
    order(world, "anothers", who="P-33", project="PROJ-1")
    order(world, "elsewhere", who="P-12")
    settle(runner)

    def told(hook: dict[str, Any]) -> list[str]:
        with world.session() as session:
            bodies = session.scalars(
                select(WebhookDelivery.body)
                .join(Webhook)
                .where(Webhook.reference == hook["reference"])
                .order_by(WebhookDelivery.id)
            )
            return [json.loads(body)["data"]["changes"]["title"][1] for body in bodies]

    assert told(customer) == ["mine"]
    assert told(manager) == ["mine", "anothers"]


def test_one_who_may_not_sign_in_any_more_is_told_nothing(
    world: World, listener: Listener, runner: Runner
) -> None:
    made(world, listener)
    with world.session() as session:
        person = session.scalars(select(Person).where(Person.reference == "P-11")).one()
        person.state = PersonState.SUSPENDED
        session.commit()
    order(world, "web")
    settle(runner)
    assert listener.told == []


def test_what_is_undone_is_not_told(world: World, listener: Listener, runner: Runner) -> None:
    made(world, listener)
    with world.session() as session:
        world.person(session, 50)
        session.rollback()
        assert session.scalars(select(TaskMark)).all() == []
    settle(runner)
    assert listener.told == []


def test_what_fails_is_tried_again_in_its_order(
    world: World, listener: Listener, runner: Runner, clock: FakeClock
) -> None:
    hook = made(world, listener, events=["instance_tree.create"])
    listener.status = 500
    for title in ("one", "two"):
        order(world, title)
    settle(runner)
    assert len(listener.told) == 1  # nothing overtakes
    assert shown(world, hook)["failing_since"] is not None
    assert history(world, hook)[-1]["status"] == 500
    clock.advance(9)
    settle(runner)
    assert len(listener.told) == 1
    clock.advance(1)
    settle(runner)
    assert len(listener.told) == 2
    listener.status = 200
    clock.advance(19)
    settle(runner)
    assert len(listener.told) == 2
    clock.advance(1)
    settle(runner)
    ids = [headers["Webhook-Id"] for headers, _ in listener.told]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert shown(world, hook)["failing_since"] is None
    assert {each["state"] for each in history(world, hook)} == {"delivered"}


def test_one_that_fails_for_days_is_disabled_until_it_is_enabled(
    world: World, listener: Listener, runner: Runner, clock: FakeClock
) -> None:
    hook = made(world, listener, events=["instance_tree.create"])
    listener.status = 302  # is not followed, and is no success
    order(world, "web")
    settle(runner)
    for _ in range(11):
        clock.advance(6 * 3600)
        settle(runner)
    order(world, "another")
    settle(runner)
    assert shown(world, hook)["enabled"] is True
    clock.advance(6 * 3600)
    settle(runner)
    found = shown(world, hook)
    assert (found["enabled"], found["reason"][:24]) == (False, "it has taken nothing sin")
    count = len(listener.told)
    assert count == 13
    assert [each["state"] for each in history(world, hook)] == ["waiting", "failed"]
    order(world, "meanwhile")
    clock.advance(DAY)
    settle(runner)
    assert len(listener.told) == count
    listener.status = 200
    assert change(world, hook, enabled=True).get_json()["enabled"] is True
    order(world, "now")
    settle(runner)
    assert json.loads(listener.told[-1][1])["data"]["changes"]["title"] == [None, "now"]


def test_one_that_says_it_is_gone_is_disabled(
    world: World, listener: Listener, runner: Runner
) -> None:
    hook = made(world, listener)
    listener.status = 410
    order(world, "web")
    settle(runner)
    assert shown(world, hook)["enabled"] is False


def test_one_that_is_not_there_hinders_no_other(
    world: World, listener: Listener, runner: Runner
) -> None:
    gone = made(world, listener, url="http://127.0.0.1:1/", events=["instance_tree.create"])
    made(world, listener, events=["instance_tree.create"])
    order(world, "web")
    settle(runner)
    assert listener.types() == ["instance_tree.create"]
    assert "refused" in history(world, gone)[0]["reason"].lower()


def test_a_webhook_is_changed_removed_and_pinged_by_who_may(
    world: World, listener: Listener, runner: Runner
) -> None:
    hook = made(world, listener)
    path = f"/v1/webhooks/{hook['reference']}"
    for stranger in ("P-12", "P-22", "COMP-1"):
        assert world.as_(stranger).get(path).status_code == 404
        assert world.as_(stranger).delete(path).status_code == 404
        assert world.as_(stranger).get(f"{path}/deliveries").status_code == 404
        assert world.as_(stranger).get("/v1/webhooks").get_json()["webhooks"] == []
    assert len(world.as_("P-21").get("/v1/webhooks").get_json()["webhooks"]) == 1
    answer = change(world, hook, who="P-21", events=["instance.create"])
    assert answer.get_json()["events"] == ["instance.create"]
    assert world.as_("P-11").post(f"{path}/ping").status_code == 204
    settle(runner)
    assert listener.types() == ["ping"]
    change(world, hook, enabled=False)
    assert world.as_("P-11").post(f"{path}/ping").status_code == 409
    assert world.as_("P-11").delete(path).status_code == 204
    assert world.as_("P-11").get(path).status_code == 404


def test_a_change_of_what_has_changed_is_refused(world: World, listener: Listener) -> None:
    hook = made(world, listener)
    path = f"/v1/webhooks/{hook['reference']}"
    tag = world.as_("P-11").get(path).headers["ETag"]
    assert change(world, hook, events=["node.*"]).status_code == 400
    assert change(world, hook, events=["compute_node.*"]).status_code == 200
    answer = world.as_("P-11").patch(path, json={"enabled": False}, headers={"If-Match": tag})
    assert answer.status_code == 412


@pytest.mark.parametrize(
    ("who", "body", "status"),
    [
        ("P-12", {}, 404),
        ("P-11", {"project": "PROJ-9"}, 404),
        ("COMP-1", {}, 404),
        ("P-11", {"url": "https://192.0.2.1/"}, 400),
        ("P-11", {"url": "https://user:word@127.0.0.1/"}, 400),
        ("P-11", {"events": []}, 400),
        ("P-11", {"events": ["instance"]}, 400),
        ("P-11", {"events": ["instance.explode"]}, 400),
    ],
)
def test_a_webhook_that_may_not_be_is_refused(
    world: World, listener: Listener, who: str, body: dict[str, Any], status: int
) -> None:
    asked = {"project": "PROJ-1", "url": listener.url, "events": ["*"]} | body
    assert world.as_(who).post("/v1/webhooks", json=asked).status_code == status


def test_nobody_has_more_than_some(world: World, listener: Listener) -> None:
    for _ in range(20):
        made(world, listener)
    asked = {"project": "PROJ-1", "url": listener.url, "events": ["*"]}
    assert world.as_("P-11").post("/v1/webhooks", json=asked).status_code == 409
