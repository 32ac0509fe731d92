"""What a request changed is stored before it is answered, or it is not changed at all."""

import sqlite3
from itertools import pairwise
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.orm.exc import StaleDataError

from slapos.master.http import ATTEMPTS
from slapos.protocol.marshal import loads
from slapos.protocol.messages import NodeInformation
from tests.fakes import FakeClock
from tests.integration.master.factories import NODE, URL, format_form, request_form


@pytest.fixture
def engine(app: Flask) -> Engine:
    found: Engine = app.extensions["slapos"].database.engine
    return found


@pytest.fixture
def sessions(app: Flask) -> sessionmaker[Session]:
    found: sessionmaker[Session] = app.extensions["slapos"].database.writing
    return found


def supply(client: FlaskClient, url: str = URL) -> tuple[int, str]:
    answer = client.post("/supplySupply", data={"url": url, "computer_id": NODE})
    return answer.status_code, answer.text


def releases(client: FlaskClient) -> list[str]:
    found = client.get(f"/v1/nodes/{NODE}/installations").get_json()["installations"]
    return [each["url"] for each in found]


def test_a_commit_that_fails_is_answered_as_a_failure(
    client: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    def fail(_session: Session) -> None:
        raise OperationalError("COMMIT", {}, Exception("the disk is on fire"))

    event.listen(sessions, "before_commit", fail)
    status, said = supply(client)
    event.remove(sessions, "before_commit", fail)
    assert status == 503
    assert "the disk is on fire" in said
    assert releases(client) == []
    assert supply(client)[0] == 200
    assert releases(client) == [URL]


def test_a_failure_in_json_has_a_code(client: FlaskClient, engine: Engine) -> None:
    def fail(*_arguments: Any) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    event.listen(engine, "before_cursor_execute", fail)
    answer = client.get("/v1/nodes")
    event.remove(engine, "before_cursor_execute", fail)
    assert (answer.status_code, answer.get_json()["error"]) == (503, "database_failed")


def test_who_is_disturbed_again_and_again_is_asked_to_come_back(
    client: FlaskClient, sessions: sessionmaker[Session], clock: FakeClock
) -> None:
    tried = []

    def disturb(_session: Session) -> None:
        tried.append(clock.now())
        raise StaleDataError

    event.listen(sessions, "before_commit", disturb)
    status, said = supply(client)
    event.remove(sessions, "before_commit", disturb)
    assert (status, "try again in a moment" in said) == (503, True)
    waits = [(after - before).total_seconds() for before, after in pairwise(tried)]
    assert len(tried) == ATTEMPTS
    assert waits == sorted(waits)


def test_a_database_that_stays_locked_is_waited_for_once(
    client: FlaskClient, engine: Engine, clock: FakeClock
) -> None:
    """Each attempt has already waited for the lock, and a client does not wait for ever."""
    tried = []

    def wait_in_vain(*_arguments: Any) -> None:
        tried.append(clock.now())
        clock.advance(31)
        locked = sqlite3.OperationalError("database is locked")
        locked.sqlite_errorname = "SQLITE_BUSY"
        raise OperationalError("INSERT", {}, locked)

    event.listen(engine, "before_cursor_execute", wait_in_vain)
    status, said = supply(client)
    event.remove(engine, "before_cursor_execute", wait_in_vain)
    assert (status, len(tried)) == (503, 1)
    assert "database is locked" in said
    assert supply(client)[0] == 200


def test_who_is_disturbed_once_does_not_notice(
    client: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    client.post("/loadComputerConfigurationFromXML", data=format_form(2))
    disturbances = [StaleDataError()]

    def disturb(_session: Session) -> None:
        if disturbances:
            raise disturbances.pop()

    event.listen(sessions, "before_commit", disturb)
    answers = [client.post("/requestComputerPartition", data=request_form()) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].data == answers[1].data
    told = client.get(f"/getFullComputerInformation?computer_id={NODE}")
    node = NodeInformation.from_marshalled(loads(told.data))
    assert [partition.is_free for partition in node.partitions] == [False, True]


def test_a_refused_request_leaves_nothing(client: FlaskClient) -> None:
    client.post("/loadComputerConfigurationFromXML", data=format_form(0))
    assert client.post("/requestComputerPartition", data=request_form()).status_code == 404
    assert client.get("/v1/instance-trees").get_json() == {"instance_trees": [], "next": None}


@pytest.mark.parametrize("database_uri", ["sqlite"], indirect=True)
def test_a_full_disk_is_said_and_harms_nothing(client: FlaskClient, engine: Engine) -> None:
    supply(client)

    def limit(connection: Any, _record: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 4}")

    engine.dispose()
    event.listen(engine, "connect", limit)
    said = [supply(client, f"https://example.org/{'x' * 1900}/{number}") for number in range(30)]
    event.remove(engine, "connect", limit)
    engine.dispose()
    assert said[-1][0] == 503
    assert "full" in said[-1][1]
    stored = sum(status == 200 for status, _ in said)
    assert len(releases(client)) == 1 + stored
    assert supply(client, URL + "/more")[0] == 200
