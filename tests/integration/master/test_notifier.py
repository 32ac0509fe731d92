"""What other masters of one PostgreSQL are told: after the commit, and all of it."""

from collections.abc import Iterator

import psycopg
import pytest

from slapos.master.database import Database, open_database
from slapos.master.nodes.exchange import CHANNEL
from slapos.master.nodes.notifier import Notifier, announcer_of
from slapos.master.settings import database_url
from tests.database import Postgresql


@pytest.fixture
def uri(postgresql: Postgresql) -> Iterator[str]:
    name = postgresql.migrated()
    yield postgresql.url(name)
    postgresql.give_back(name)


@pytest.fixture
def database(uri: str) -> Iterator[Database]:
    database = open_database(database_url(uri))
    yield database
    database.close()


@pytest.fixture
def others(uri: str) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}".encode())
        yield connection


def heard(others: "psycopg.Connection[tuple[object, ...]]", count: int) -> list[int]:
    found: list[int] = []
    for told in others.notifies(timeout=30, stop_after=count):
        found.append(int(told.payload))
    return sorted(found)


def test_nodes_of_many_commits_are_told_each(
    database: Database, others: "psycopg.Connection[tuple[object, ...]]"
) -> None:
    announce = announcer_of(database)
    for node_id in range(1, 101):
        announce([node_id])
    assert heard(others, 100) == list(range(1, 101))


def test_what_was_said_last_is_told_before_the_connections_go(
    database: Database, others: "psycopg.Connection[tuple[object, ...]]"
) -> None:
    announcer_of(database)([7])
    database.close()
    assert heard(others, 1) == [7]


def test_a_connection_that_was_ended_is_made_again(
    database: Database, others: "psycopg.Connection[tuple[object, ...]]"
) -> None:
    notifier = Notifier(database.looking)
    notifier([1])
    notifier.end()
    others.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    notifier([2])
    notifier.end()
    assert heard(others, 2) == [1, 2]


def test_a_database_that_is_gone_does_no_harm(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = open_database("postgresql+psycopg://nobody@/nothing?host=/nowhere")
    notifier = Notifier(nowhere.looking)
    notifier([1])
    notifier.end()
    assert "other masters cannot be told of changes" in caplog.text
    nowhere.close()


def test_on_sqlite_nobody_is_told(tmp_path: object) -> None:
    database = open_database(f"sqlite:///{tmp_path}/none.db")
    assert announcer_of(database).listeners == []
    database.close()
