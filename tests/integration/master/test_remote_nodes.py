"""Instances on remote nodes: ordered at another master, which is asked by a person's token."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from slapos.master.app import create_app
from slapos.master.catalog.model import SoftwareInstallation
from slapos.master.monitoring import losses
from slapos.master.nodes.exchange import ASK_OTHER_MASTERS
from slapos.master.nodes.model import RemoteNode
from slapos.master.provisioning.model import SoftwareInstance
from slapos.master.provisioning.remote_title import came_from_elsewhere
from slapos.master.remote.model import RemoteRequest
from slapos.master.remote.talks import LEASE
from slapos.master.settings import Profile, Settings
from slapos.master.tasks import service
from slapos.master.tasks.registry import TASKS
from slapos.master.tasks.runner import Runner
from slapos.master.tasks.worker import Doors, make_rows
from slapos.protocol.states import InstanceState
from tests.database import SqliteTemplate
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.master.catalogue import add_product, add_supply
from tests.integration.master.factories import URL
from tests.integration.master.full import World, by_header
from tests.integration.master.other_master import OtherMaster, other_master
from tests.integration.master.test_query_plans import scans

NODES = "/v1/remote-nodes"
TREES = "/v1/instance-trees"
MANAGER, CUSTOMER = "P-21", "P-11"
HERE = (ip_network("127.0.0.0/8"),)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("x" * 64)
    path.chmod(0o600)
    return path


@pytest.fixture
def other(
    sqlite_template: SqliteTemplate, tmp_path: Path, secret_file: Path, clock: FakeClock
) -> Iterator[OtherMaster]:
    sqlite_template.copy_to(tmp_path / "other.db")
    url = f"sqlite:///{tmp_path}/other.db"
    with other_master(Settings(database_url=url, secret_file=secret_file), clock) as found:
        yield found


@pytest.fixture
def world(settings: Settings, secret_file: Path, clock: FakeClock) -> Iterator[World]:
    settings = Settings(
        database_url=settings.database_url,
        profile=Profile.FULL,
        secret_file=secret_file,
        remote_networks=HERE,
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
    chosen = {ASK_OTHER_MASTERS: replace(TASKS[ASK_OTHER_MASTERS], every=None)}
    make_rows(doors, chosen)
    return Runner(doors, chosen)


@pytest.fixture
def remote(world: World, other: OtherMaster) -> str:
    """A remote node for the other master, which takes one release and type."""
    reference = made(world, url=other.url, token=other.token, filters={"computer_guid": other.node})
    with world.session() as session:
        supply = add_supply(session, add_product(session, project_id=1), [reference])
        supply.shared_in_same_tree = True
        session.commit()
    return reference


def made(world: World, who: str = MANAGER, **fields: Any) -> str:
    body = {"project": "PROJ-1", "title": "far", "partitions": 2} | fields
    answer = world.as_(who).post(NODES, json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.get_json()["reference"])


def settle(runner: Runner) -> None:
    """Have the task do all that is due now."""
    for _ in range(50):
        if runner.round():
            return
    raise AssertionError("it never comes to an end")


def order(world: World, title: str = "web", **fields: Any) -> str:
    """Order a service; return what its tree is called at the other master."""
    body = {"project": "PROJ-1", "title": title, "software_url": URL, **fields}
    answer = world.as_(CUSTOMER).post(TREES, json=body)
    assert answer.status_code == 201, answer.text
    return f"_remote_PROJ-1_{answer.get_json()['instances'][0]['guid']}"


def root(world: World, title: str = "web") -> dict[str, Any]:
    told = world.as_(CUSTOMER).get(f"{TREES}/{title}").get_json()
    found: dict[str, Any] = told["instances"][0]
    return found


def change(world: World, title: str = "web", **fields: Any) -> None:
    answer = world.as_(CUSTOMER).patch(f"{TREES}/{title}", json=fields)
    assert answer.status_code < 300, answer.text


def destroy(world: World, title: str = "web") -> None:
    answer = world.as_(CUSTOMER).delete(f"{TREES}/{title}")
    assert answer.status_code < 300, answer.text


def left(world: World) -> int:
    """Return how many instances the other master has yet to hear more of."""
    with world.session() as session:
        return len(session.scalars(select(RemoteRequest)).all())


def test_a_service_goes_to_the_other_master_and_what_it_publishes_comes_back(
    world: World, other: OtherMaster, remote: str, runner: Runner, clock: FakeClock
) -> None:
    title = order(world, parameters={"colour": "blue"})
    assert (root(world)["node"], root(world)["partition"]) == (remote, "slapremote0")
    assert (root(world)["phase"], root(world)["reason"]) == ("instantiating", "not_processed")
    settle(runner)
    there = other.instances()
    assert list(there) == [title]
    assert there[title]["parameters"] == {"colour": "blue"}
    assert there[title]["filters"] == {"computer_guid": other.node}
    assert root(world)["phase"] == "instantiating"
    other.publish(title, {"url": "http://far/"})
    other.report(title, InstanceState.STARTED)
    clock.advance(60)
    settle(runner)
    assert root(world)["phase"] == "healthy"
    assert root(world)["connection"] == {"url": "http://far/"}

    change(world, parameters={"colour": "red"})
    assert root(world)["phase"] == "instantiating"
    clock.advance(5)
    settle(runner)
    assert other.instances()[title]["parameters"] == {"colour": "red"}
    assert root(world)["phase"] == "instantiating", "nobody there has done it yet"
    change(world, state="stopped")
    settle(runner)
    assert other.instances()[title]["requested_state"] == "stopped"
    clock.advance(5)
    other.report(title, InstanceState.STOPPED)
    clock.advance(60)
    settle(runner)
    assert (root(world)["requested_state"], root(world)["phase"]) == ("stopped", "healthy")

    with world.session() as session:
        assert session.scalars(select(SoftwareInstallation)).all() == []


def test_a_destroyed_one_is_gone_here_at_once_and_there_as_soon_as_it_is_told(
    world: World, other: OtherMaster, remote: str, runner: Runner
) -> None:
    title = order(world)
    settle(runner)
    destroy(world)
    assert world.as_(CUSTOMER).get(f"{TREES}/web").status_code == 404
    assert other.instances()[title]["requested_state"] == "started"
    settle(runner)
    assert other.instances()[title]["requested_state"] == "destroyed"
    assert left(world) == 0
    told = world.as_(MANAGER).get(f"{NODES}/{remote}").get_json()
    assert (told["free"], told["busy"]) == (2, 0)


def test_what_is_destroyed_before_it_is_known_there_never_comes_there(
    world: World, other: OtherMaster, remote: str, runner: Runner
) -> None:
    order(world)
    destroy(world)
    settle(runner)
    assert other.instances() == {}
    assert left(world) == 0


def test_a_shared_instance_goes_to_the_other_master_as_one(
    world: World, other: OtherMaster, remote: str, runner: Runner, clock: FakeClock
) -> None:
    host = order(world, "host")
    settle(runner)
    share = order(world, "share", shared=True, parameters={"name": "a"})
    assert (root(world, "share")["node"], root(world, "share")["partition"]) == (
        remote,
        "SHARED_REMOTE",
    )
    settle(runner)
    assert root(world, "share")["reason"] == "waiting"
    assert "no instance hosts shared ones" in root(world, "share")["message"]
    other.host_for_all(host)
    clock.advance(60)
    change(world, "share", parameters={"name": "b"})
    settle(runner)
    assert other.instances()[share]["shared"]
    assert other.instances()[share]["is_placed"]
    assert root(world, "share")["phase"] == "healthy"
    other.publish(share, {"url": "http://shared/"})
    clock.advance(60)
    settle(runner)
    assert root(world, "share")["connection"] == {"url": "http://shared/"}
    destroy(world, "share")
    settle(runner)
    assert list(other.instances()) == [host]


def test_an_error_there_is_the_status_here(
    world: World, other: OtherMaster, remote: str, runner: Runner, clock: FakeClock
) -> None:
    title = order(world)
    settle(runner)
    other.fail(title, "Promise 'listens' failed: no")
    clock.advance(60)
    settle(runner)
    assert (root(world)["phase"], root(world)["reason"]) == ("promising", "promise_failed")
    assert root(world)["message"] == "Promise 'listens' failed: no"
    other.report(title, InstanceState.STARTED)
    clock.advance(60)
    settle(runner)
    assert root(world)["phase"] == "healthy"


def test_waiting_there_is_waiting_here_with_the_words_from_there(
    world: World, other: OtherMaster, remote: str, runner: Runner
) -> None:
    answer = world.as_(MANAGER).patch(
        f"{NODES}/{remote}", json={"filters": {"computer_guid": "COMP-999"}}
    )
    assert answer.status_code == 200, answer.text
    order(world)
    settle(runner)
    assert (root(world)["phase"], root(world)["reason"]) == ("instantiating", "waiting")
    assert "computer_guid 'COMP-999'" in root(world)["message"]
    world.as_(MANAGER).patch(f"{NODES}/{remote}", json={"filters": {}})
    settle(runner)
    assert "waiting for REMOTE" in root(world)["message"], "it has a place there"


def test_a_refusal_stays_as_an_error_and_is_not_repeated_all_the_time(
    world: World, other: OtherMaster, remote: str, runner: Runner, clock: FakeClock
) -> None:
    title = order(world)
    settle(runner)
    with world.session() as session:
        request = session.scalars(select(RemoteRequest)).one()
        instance_id = request.instance_id
        session.commit()
    with world.session() as session:
        instance = session.get_one(SoftwareInstance, instance_id)
        instance.software_type = "another"
        instance.mark_changed(clock.now())
        session.commit()
    settle(runner)
    assert root(world)["reason"] == "instance_failed"
    assert "refuses it" in root(world)["message"]
    assert "cannot be changed by a request" in root(world)["message"]
    assert other.instances()[title]["is_placed"]
    with world.session() as session:
        request = session.scalars(select(RemoteRequest)).one()
        assert request.next_at > clock.now()


def test_credentials_are_never_shown_to_another_master_than_the_one_they_are_for(
    world: World, other: OtherMaster, remote: str
) -> None:
    change = world.as_(MANAGER).patch
    refused = change(f"{NODES}/{remote}", json={"url": "http://127.0.0.1:1/"})
    assert refused.status_code == 400
    assert "credentials" in refused.get_json()["fields"][0]["message"]
    assert change(f"{NODES}/{remote}", json={"url": f"{other.url}below/"}).status_code == 200


def test_an_unreachable_master_is_an_error_with_its_cause_and_is_asked_again_later(
    world: World, other: OtherMaster, remote: str, runner: Runner, clock: FakeClock
) -> None:
    elsewhere = {"url": "http://127.0.0.1:1/", "token": "its-own"}
    answer = world.as_(MANAGER).patch(f"{NODES}/{remote}", json=elsewhere)
    assert answer.status_code == 200, answer.text
    title = order(world)
    settle(runner)
    assert (root(world)["phase"], root(world)["reason"]) == ("failed", "master_unreachable")
    assert "http://127.0.0.1:1/ does not answer" in root(world)["message"]
    told = world.as_(MANAGER).get(f"{NODES}/{remote}").get_json()
    assert told["failing_since"] is not None
    assert "does not answer" in told["error"]
    with world.session() as session:
        node = session.scalars(select(RemoteNode)).one()
        assert (node.failures, node.next_at) == (1, node.failing_since and node.next_at)
    clock.advance(6)
    settle(runner)
    with world.session() as session:
        assert session.scalars(select(RemoteNode)).one().failures == 2
    back = {"url": other.url, "token": other.token}
    assert world.as_(MANAGER).patch(f"{NODES}/{remote}", json=back).status_code == 200
    settle(runner)
    assert list(other.instances()) == [title]
    assert world.as_(MANAGER).get(f"{NODES}/{remote}").get_json()["error"] == ""


def test_a_token_that_does_not_count_is_said_so(
    world: World, other: OtherMaster, remote: str, runner: Runner
) -> None:
    world.as_(MANAGER).patch(f"{NODES}/{remote}", json={"token": "slapos_wrong"})
    order(world)
    settle(runner)
    assert root(world)["reason"] == "master_unreachable"
    assert "token" in root(world)["message"]
    assert other.instances() == {}


def test_who_was_killed_on_the_way_is_followed_by_another_one(
    world: World, other: OtherMaster, remote: str, runner: Runner, clock: FakeClock
) -> None:
    title = order(world)
    with world.session() as session:
        node = session.scalars(select(RemoteNode)).one()
        node.asking_until = clock.now() + LEASE
        session.commit()
    settle(runner)
    assert other.instances() == {}, "somebody is at it"
    clock.advance(LEASE.total_seconds() + 1)
    with world.session() as session:  # as the safety net does for all
        service.request_run(session, ASK_OTHER_MASTERS, Profile.FULL)
        session.commit()
    settle(runner)
    assert list(other.instances()) == [title]


def test_what_another_master_ordered_is_not_ordered_on(
    world: World, other: OtherMaster, remote: str, runner: Runner
) -> None:
    assert came_from_elsewhere("_remote_PROJ-7_SOFTINST-12")
    assert came_from_elsewhere("user__remote_PROJ-7_SOFTINST-12")
    assert not came_from_elsewhere("my_remote_database")
    for shared in (False, True):
        title = f"_remote_PROJ-7_SOFTINST-{12 + shared}"
        body = {"project": "PROJ-1", "title": title, "software_url": URL, "shared": shared}
        told = world.as_(CUSTOMER).post(TREES, json=body).get_json()["instances"][0]
        assert (told["phase"], told["node"]) == ("allocating", None)
    settle(runner)
    assert other.instances() == {}


def test_a_remote_node_is_never_lost(
    world: World, other: OtherMaster, remote: str, runner: Runner, clock: FakeClock
) -> None:
    order(world)
    place = {"computer_id": remote, "computer_partition_id": "slapremote0"}
    said = world.as_(MANAGER).post("/startedComputerPartition", data=place)
    assert said.status_code == 200, said.text
    clock.advance(3600)
    with world.session() as session:
        losses.look(session, clock.now(), timedelta(minutes=1))
        clock.advance(3600)
        assert losses.look(session, clock.now(), timedelta(minutes=1)) == 0
        session.rollback()
    partitions = world.as_(MANAGER).get(f"/v1/nodes/{remote}/partitions").get_json()["partitions"]
    assert {each["reference"]: each["state"] for each in partitions} == {
        "SHARED_REMOTE": "busy",
        "slapremote0": "busy",
        "slapremote1": "free",
    }


def test_what_is_to_be_asked_is_found_by_indexes(
    world: World, other: OtherMaster, remote: str, runner: Runner
) -> None:
    order(world)
    settle(runner)
    engine, asked = world.parts.database.engine, list[tuple[str, Any]]()

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        if "pg_notify" not in statement:  # a thread of its own tells others
            asked.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    change(world, parameters={"a": "b"})
    settle(runner)
    event.remove(engine, "before_cursor_execute", note)
    about = [each for each in asked if "remote_" in each[0]]
    assert len(about) > 5
    assert list(scans(engine, about, {"remote_requests", "remote_nodes"})) == []


def test_only_those_who_operate_a_project_make_and_change_its_remote_nodes(
    world: World, other: OtherMaster, remote: str
) -> None:
    body = {"project": "PROJ-1", "title": "x", "url": other.url, "token": other.token}
    for who, status in ((CUSTOMER, 403), ("P-22", 404), ("P-12", 404)):
        assert world.as_(who).post(NODES, json=body).status_code == status
    path = f"{NODES}/{remote}"
    for who, status in ((CUSTOMER, 403), ("P-22", 404), ("COMP-1", 404)):
        assert world.as_(who).patch(path, json={"title": "x"}).status_code == status
        assert world.as_(who).delete(path).status_code == status
    assert world.as_("P-22").get(path).status_code == 404
    assert world.as_("P-22").get(NODES).get_json()["remote_nodes"] == []
    told = world.as_(CUSTOMER).get(path)
    assert told.status_code == 200
    assert other.token not in told.text
    (listed,) = world.as_(MANAGER).get(NODES).get_json()["remote_nodes"]
    assert listed["reference"] == remote
    assert {"token", "key", "certificate", "sealed_credentials"}.isdisjoint(listed)
    listed = world.as_(MANAGER).get("/v1/nodes").get_json()["nodes"]
    assert [each["reference"] for each in listed] == ["COMP-1"]


def test_credentials_are_sealed_and_told_to_nobody(
    world: World, other: OtherMaster, remote: str
) -> None:
    with world.session() as session:
        sealed = session.scalars(select(RemoteNode)).one().sealed_credentials
    assert other.token not in sealed
    log = world.as_(MANAGER).get("/v1/audit").text
    assert remote in log
    assert other.token not in log
    assert sealed not in log


def test_a_remote_node_is_removed_when_nothing_is_behind_it_any_more(
    world: World, other: OtherMaster, remote: str, runner: Runner
) -> None:
    path = f"{NODES}/{remote}"
    order(world)
    settle(runner)
    assert world.as_(MANAGER).delete(path).status_code == 409
    assert world.as_(MANAGER).delete(f"/v1/nodes/{remote}").status_code == 409
    refused = world.as_(MANAGER).patch(path, json={"project_there": "PROJ-9"})
    assert refused.status_code == 409
    destroy(world)
    refused = world.as_(MANAGER).delete(path)
    assert refused.status_code == 409
    assert "have yet to be told" in refused.get_json()["message"]
    settle(runner)
    assert world.as_(MANAGER).delete(path).status_code == 204
    assert world.as_(MANAGER).get(path).status_code == 404


def test_partitions_are_added_and_taken_away_when_free(world: World, remote: str) -> None:
    path = f"{NODES}/{remote}"
    order(world)
    answer = world.as_(MANAGER).patch(path, json={"partitions": 0}).get_json()
    assert (answer["free"], answer["busy"]) == (0, 1)
    assert root(world)["partition"] == "slapremote0"
    body = {"project": "PROJ-1", "title": "two", "software_url": URL}
    told = world.as_(CUSTOMER).post(TREES, json=body).get_json()["instances"][0]
    assert told["node"] is None
    answer = world.as_(MANAGER).patch(path, json={"partitions": 3}).get_json()
    assert (answer["free"], answer["busy"]) == (2, 1)


def test_a_closed_remote_node_takes_nothing_more(world: World, remote: str) -> None:
    path = f"{NODES}/{remote}"
    answer = world.as_(MANAGER).patch(path, json={"allocation_scope": "close/noallocation"})
    assert answer.status_code == 200, answer.text
    for shared in (False, True):
        body = {
            "project": "PROJ-1",
            "title": f"web {shared}",
            "software_url": URL,
            "shared": shared,
        }
        told = world.as_(CUSTOMER).post(TREES, json=body).get_json()["instances"][0]
        assert told["node"] is None


def test_what_makes_no_sense_is_refused(world: World) -> None:
    body = {
        "project": "PROJ-1",
        "title": "far",
        "url": "https://master.example.com/",
        "token": "slapos_x",
    }
    for field, fields in (
        ("url", {"url": "ftp://example.com/"}),
        ("url", {"url": "https://user:word@example.com/"}),
        ("token", {"token": ""}),
        ("token", {"key": "x"}),
        ("certificate", {"token": "", "key": "no", "certificate": "no"}),
        ("token", {"token": "two words"}),
        ("authority", {"authority": "no"}),
        ("filters", {"filters": {"computer_guid": "x" * 5000}}),
        ("partitions", {"partitions": -1}),
    ):
        answer = world.as_(MANAGER).post(NODES, json=body | fields)
        assert answer.status_code == 400, answer.text
        assert [each["field"] for each in answer.get_json()["fields"]] == [field]
