"""A request that comes twice with one key is done once."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from slapos.master.database import Database
from slapos.master.nodes.model import ComputeNode
from slapos.master.rest.kept_answer import KeptAnswer
from slapos.master.settings import Settings
from slapos.system.clock import SystemClock
from tests.fakes import FakeClock
from tests.integration.master.rest_application import rest_application

PATH = "/v1/tried/again"
KEY = "7d4f9c3e-2b1a-4f6d-9e8c"


@pytest.fixture
def tried(database: Database, clock: FakeClock, settings: Settings) -> Flask:
    return rest_application(database, clock, settings)


@pytest.fixture
def asking(tried: Flask) -> FlaskClient:
    return tried.test_client()


def ask(client: FlaskClient, title: str = "one", key: str = KEY, who: str = "P-1") -> TestResponse:
    headers = {"Idempotency-Key": key, "X-Test-Caller": who}
    return client.post(PATH, json={"title": title}, headers=headers)


def nodes(database: Database) -> int:
    with database.reading() as session:
        return session.scalars(select(func.count()).select_from(ComputeNode)).one()


def test_the_same_again_is_answered_as_before(asking: FlaskClient, database: Database) -> None:
    first, second = ask(asking), ask(asking)
    assert first.status_code == second.status_code == 201
    assert first.data == second.data
    assert first.content_type == second.content_type == "application/json"
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert nodes(database) == 1


def test_another_key_or_none_is_another_request(asking: FlaskClient, database: Database) -> None:
    ask(asking)
    ask(asking, key=KEY + "-2")
    asking.post(PATH, json={"title": "one"})
    assert nodes(database) == 3


def test_a_key_does_for_one_request_only(asking: FlaskClient, database: Database) -> None:
    ask(asking)
    answer = ask(asking, title="two")
    assert (answer.status_code, answer.get_json()["error"]) == (422, "key_reused")
    assert nodes(database) == 1


def test_each_caller_has_keys_of_its_own(asking: FlaskClient, database: Database) -> None:
    assert ask(asking).data != ask(asking, who="P-2").data
    assert nodes(database) == 2


def test_what_was_refused_may_be_asked_again(asking: FlaskClient, database: Database) -> None:
    for _ in range(2):
        assert ask(asking, title="refused").status_code == 409
    assert ask(asking).status_code == 201
    assert nodes(database) == 1


def test_a_key_is_forgotten_after_a_day(
    asking: FlaskClient, database: Database, clock: FakeClock
) -> None:
    ask(asking)
    clock.advance(24 * 3600)
    assert "Idempotency-Replayed" in ask(asking).headers
    clock.advance(1)
    assert "Idempotency-Replayed" not in ask(asking, title="two").headers
    assert nodes(database) == 2


@pytest.mark.parametrize("key", ["", "short", "x" * 201, "with a space in it", "\xe9" * 16])
def test_a_key_that_could_be_guessed_is_refused(asking: FlaskClient, key: str) -> None:
    assert ask(asking, key=key).status_code == 400


def test_what_is_kept_can_be_read_with_the_key_only(
    asking: FlaskClient, database: Database
) -> None:
    assert b"5ecret" in ask(asking).data
    with database.reading() as session:
        kept = session.scalars(select(KeptAnswer)).one()
    assert kept.answer is not None
    assert b"5ecret" not in kept.answer
    assert KEY not in kept.digest


def test_many_at_once_have_one_effect(database: Database, settings: Settings) -> None:
    app = rest_application(database, SystemClock(), settings)
    count = 6
    barrier = Barrier(count)

    def run(_number: int) -> TestResponse:
        barrier.wait(30)
        return ask(app.test_client())

    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(run, range(count)))
    assert [answer.status_code for answer in answers] == [201] * count
    assert len({answer.data for answer in answers}) == 1
    assert nodes(database) == 1
