"""Migrations on both databases, and what is done with databases that are not ours."""

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from slapos.master import migrations
from slapos.master.database import open_database
from slapos.master.migrations import DatabaseUnusable
from slapos.master.migrations.schema import metadata
from slapos.master.nodes import service as nodes
from slapos.master.settings import database_url
from tests.fakes import NOON


def test_migrations_give_the_schema_of_the_models(empty_database_uri: str) -> None:
    database = open_database(database_url(empty_database_uri))
    migrations.upgrade(database)
    with database.engine.connect() as connection:
        assert migrations.version(connection) == migrations.HEAD
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    migrations.upgrade(database)
    database.close()


ROWS_OF_0003 = (
    "INSERT INTO compute_nodes (id, reference, title, created_at, version, contacted_at) "
    "VALUES (1, 'computer', 'computer', '2026-03-01 12:00:00', 7, '2026-03-01 12:00:00')",
    "INSERT INTO compute_partitions (id, node_id, reference, state) "
    "VALUES (1, 1, 'slappart0', 'free')",
    "INSERT INTO partition_addresses (partition_id, position, interface, address) "
    "VALUES (1, 0, 'lo', '10.0.0.1')",
)


def test_migrations_keep_what_is_there(empty_database_uri: str) -> None:
    database = open_database(database_url(empty_database_uri))
    migrations.upgrade(database, "0003")
    with database.engine.begin() as connection:
        for statement in ROWS_OF_0003:
            connection.execute(text(statement))
    migrations.upgrade(database)
    with database.reading() as session:
        node = nodes.find_node(session, "computer")
        assert node.exchange.version == 7
        assert node.contacted_at == NOON
        (partition,) = nodes.partitions(session, node.id)
        assert [address.address for address in partition.addresses] == ["10.0.0.1"]
    database.close()


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(database_uri: str) -> None:
    database = open_database(database_url(database_uri))
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseUnusable, match="newer version of slapos"):
        migrations.upgrade(database)
    with database.engine.connect() as connection:
        assert migrations.version(connection) == "9999"
    database.close()


def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "proxy.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE partition17 (reference TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(DatabaseUnusable, match="another program's tables"):
        _upgrade(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy milk\n" * 1000)
    with pytest.raises(DatabaseUnusable, match="not a database"):
        _upgrade(path)
    assert path.read_text() == "buy milk\n" * 1000


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match=r"the folder .*/nowhere does not exist"):
        _upgrade(tmp_path / "nowhere" / "proxy.db")


def test_a_locked_database_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = tmp_path / "proxy.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseUnusable, match="another program holds it"):
        _upgrade(path)
    holder.close()
    _upgrade(path)


def test_a_server_that_is_not_there_is_named() -> None:
    database = open_database(database_url("postgresql://slapos@127.0.0.1:1/slapos"))
    with pytest.raises(DatabaseUnusable, match="is the server running"):
        migrations.upgrade(database)


def _upgrade(path: Path) -> None:
    database = open_database(database_url(str(path)), wait=0.1)
    try:
        migrations.upgrade(database)
    finally:
        database.close()
