"""Backups are of one moment, whole, and give back what was, on both databases."""

import gzip
import json
from pathlib import Path

import pytest
from sqlalchemy import text

from slapos.master import migrations
from slapos.master.backup import restoring
from slapos.master.backup.backing_up import back_up, last_numbers
from slapos.master.backup.form import BackupUnusable
from slapos.master.backup.restoring import FORGOTTEN, GAP, KNOWN_OUTSIDE, restore
from slapos.master.database import Database, open_database
from slapos.master.migrations.schema import metadata
from slapos.master.nodes import service as nodes
from slapos.master.numbering import next_number
from slapos.master.presence import InUse, at_work
from slapos.master.settings import database_url
from slapos.system.identifier import SystemIdentifiers
from tests.conftest import KINDS
from tests.database import Postgresql
from tests.fakes import FakeClock
from tests.integration.master.every_table import fill, rows_of

CHANGED = {"node_exchanges", *FORGOTTEN}


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database with nothing in it."""
    uri = str(tmp_path / "target.db")
    if request.param == "postgresql":
        server: Postgresql = request.getfixturevalue("postgresql")
        uri = server.url(server.empty())
    return open_database(database_url(uri), threads=1)


def backup_of(database: Database, folder: Path) -> Path:
    path = folder / "master.backup"
    back_up(database, path, FakeClock(), "s" * 64)
    return path


def filled(database: Database) -> Database:
    with database.engine.begin() as connection:
        fill(connection, metadata)
    return database


def test_every_table_is_as_it_was_on_whatever_database(
    database: Database, target: Database, tmp_path: Path
) -> None:
    path = backup_of(filled(database), tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    restore(target, path, SystemIdentifiers())
    with database.engine.connect() as before, target.engine.connect() as after:
        for table in metadata.sorted_tables:
            if table.name not in CHANGED:
                assert rows_of(after, table) == rows_of(before, table), table.name
                assert table.name == "reference_numbers" or rows_of(after, table)
        assert migrations.version(after) == migrations.HEAD
    migrations.check(target)
    target.close()


def test_nodes_are_told_anew_everybody_signs_in_and_no_reference_is_given_twice(
    database: Database, target: Database, tmp_path: Path
) -> None:
    filled(database)
    with database.writing.begin() as session:
        last = next_number(session)
    restore(target, backup_of(database, tmp_path), SystemIdentifiers())
    marks = text("SELECT change FROM node_exchanges")
    with database.engine.connect() as before, target.engine.connect() as after:
        old = set(before.execute(marks).scalars())
        new = set(after.execute(marks).scalars())
        assert len(new) == len(old) == 3
        assert not new & old
        for name in FORGOTTEN:
            assert rows_of(after, metadata.tables[name]) == []
    with target.writing.begin() as session:
        assert next_number(session) == last + GAP + 1
    with target.writing.begin() as session:
        ids = session.scalars(text("SELECT id FROM compute_nodes")).all()
        node = nodes.ensure_node(session, FakeClock(), "another")
        session.flush()
        assert node.id not in ids
    target.close()


def test_what_was_given_out_since_is_in_the_database_that_is_replaced(
    database: Database, tmp_path: Path
) -> None:
    filled(database)
    made = backup_of(database, tmp_path)
    most = 3 * GAP
    with database.engine.begin() as connection:
        for name in KNOWN_OUTSIDE:
            restoring.set_number(connection, name, most)
    restore(database, made, SystemIdentifiers(), replaces=True)
    with database.writing.begin() as session:
        assert next_number(session) > most + GAP
    with database.engine.connect() as connection:
        for name in KNOWN_OUTSIDE:
            assert dict(last_numbers(connection))[name] >= most + GAP


def test_a_backup_of_an_older_schema_is_brought_to_this_one(
    empty_database_uri: str, target: Database, tmp_path: Path
) -> None:
    database = open_database(database_url(empty_database_uri))
    migrations.upgrade(database, "0005")
    with database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO compute_nodes (id, reference, title, created_at) "
                "VALUES (5, 'computer', 'computer', '2026-03-01 12:00:00')"
            )
        )
    done = restore(target, backup_of(database, tmp_path), SystemIdentifiers())
    assert done.schema == "0005"
    with target.reading() as session:
        assert nodes.find_node(session, "computer").id == 5
    database.close()
    target.close()


def test_what_is_there_is_replaced_only_when_that_is_asked_for(
    database: Database, target: Database, tmp_path: Path
) -> None:
    path = backup_of(filled(database), tmp_path)
    restore(target, path, SystemIdentifiers())
    with target.engine.begin() as connection:
        connection.execute(text("UPDATE compute_nodes SET title = 'changed'"))
    with pytest.raises(BackupUnusable, match="give --force"):
        restore(target, path, SystemIdentifiers())
    restore(target, path, SystemIdentifiers(), replaces=True)
    table = metadata.tables["compute_nodes"]
    with database.engine.connect() as before, target.engine.connect() as after:
        assert rows_of(after, table) == rows_of(before, table)
    target.close()


def test_what_was_cut_off_or_changed_is_refused_and_changes_nothing(
    database: Database, target: Database, tmp_path: Path
) -> None:
    lines = gzip.decompress(backup_of(filled(database), tmp_path).read_bytes()).splitlines(True)
    damaged = {
        "was cut off": lines[:-1],
        "was changed": [*lines[:2], *lines[3:]],
        "is no backup": [b"hello\n"],
        "a newer version": [_with(lines[0], schema="9999"), *lines[1:]],
        "has the format 2": [_with(lines[0], format=2), *lines[1:]],
    }
    for reason, content in damaged.items():
        path = tmp_path / "damaged.backup"
        path.write_bytes(gzip.compress(b"".join(content)))
        with pytest.raises(BackupUnusable, match=reason):
            restore(target, path, SystemIdentifiers())
    (tmp_path / "torn.backup").write_bytes((tmp_path / "master.backup").read_bytes()[:-30])
    with pytest.raises(BackupUnusable, match="damaged"):
        restore(target, tmp_path / "torn.backup", SystemIdentifiers())
    (tmp_path / "text.backup").write_bytes(b"hello\n")
    with pytest.raises(BackupUnusable, match="no backup"):
        restore(target, tmp_path / "text.backup", SystemIdentifiers())
    assert migrations.is_empty(target)
    target.close()


def test_nothing_is_replaced_while_a_master_is_at_work(
    database_uri: str, database: Database, tmp_path: Path
) -> None:
    path = backup_of(database, tmp_path)
    url = open_database(database_url(database_uri)).engine.url
    other = open_database(database_url(database_uri), threads=1)
    with at_work(url), database.engine.connect():
        with pytest.raises(InUse, match="at work on this database"):
            restore(other, path, SystemIdentifiers(), replaces=True)
        with pytest.raises(InUse):
            migrations.refuse_others(other)
    database.close()
    restore(other, path, SystemIdentifiers(), replaces=True)
    other.close()


def test_a_backup_is_of_one_moment(database: Database, tmp_path: Path) -> None:
    """What is committed while it is made is not in it, or all of it."""
    filled(database)
    seen = tmp_path / "seen"

    class Slow(FakeClock):
        def now(self):  # type: ignore[no-untyped-def]  # called once the transaction has begun
            if not seen.exists():
                seen.touch()
                with database.writing.begin() as session:
                    session.execute(text("UPDATE compute_nodes SET title = 'later'"))
            return super().now()

    path = tmp_path / "master.backup"
    back_up(database, path, Slow(), None)
    assert seen.exists()
    assert b"later" not in gzip.decompress(path.read_bytes())


def test_a_failed_backup_leaves_the_one_before(database: Database, tmp_path: Path) -> None:
    path = backup_of(database, tmp_path)
    before = path.read_bytes()

    class Broken(FakeClock):
        def now(self):  # type: ignore[no-untyped-def]
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        back_up(database, path, Broken(), None)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.glob("*.backup*")] == ["master.backup"]
    assert list(tmp_path.glob(".master.backup*")) == []


def _with(line: bytes, **changed: object) -> bytes:
    return json.dumps(json.loads(line) | changed).encode() + b"\n"
