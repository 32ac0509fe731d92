"""Putting a backup back into a database, of either kind: all of it or nothing."""

import base64
import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, inspect, text

from slapos.master import migrations, presence
from slapos.master.backup.backing_up import last_numbers
from slapos.master.backup.form import VERSION_TABLE, BackupUnusable, Reader
from slapos.master.backup.sealing import opened
from slapos.master.database import Database
from slapos.master.nodes.exchange import MARK_LENGTH
from slapos.system.identifier import Identifiers

#: Rows that are stored at a time.
BATCH = 1000
#: Numbers that are left out, so that what was given out after the backup is not given out again:
#: more than are given out from one backup to the next, and few beside the 2 ** 31 that there are.
GAP = 1_000_000
#: What counts what others know by its number: references, and the messages of webhooks.
KNOWN_OUTSIDE = ("reference_numbers", "webhook_deliveries")
#: Whoever signed out after the backup is not to be in again, and what was used once not to be used
#: twice: all sign in anew.
FORGOTTEN = ("sign_ins", "one_time_links", "mails")

_FOREIGN_KEYS = text(
    "SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid) "
    "FROM pg_constraint WHERE contype = 'f' AND connamespace = current_schema()::regnamespace"
)


@dataclass(frozen=True)
class Restored:
    """What was put back: the schema it had, when it was made."""

    schema: str
    made_at: str


def read_about(path: Path, passphrase: str | None = None) -> dict[str, Any]:
    """Return the first line of a backup. Raises BackupUnusable, OSError."""
    with opened(path, passphrase) as file, gzip.open(file) as stream:
        return Reader(stream).about  # type: ignore[arg-type]


def restore(
    database: Database,
    path: Path,
    identifiers: Identifiers,
    *,
    replaces: bool = False,
    before_commit: Callable[[], None] | None = None,
    passphrase: str | None = None,
) -> Restored:
    """Put a backup into an empty database, or with `replaces` in place of all that is there.

    `before_commit` is called when all is there and the backup was whole. The database is brought to
    the schema of this version, nodes are told anew what they have to do, and everybody signs in
    again. Raises BackupUnusable, InUse, DatabaseUnusable, OSError, and leaves the database as it
    was.
    """
    with opened(path, passphrase) as file, gzip.open(file) as stream:
        reader = Reader(stream)  # type: ignore[arg-type]
        with migrations.under_lock(database) as connection, presence.alone(connection):
            replaced = dict(last_numbers(connection)) if replaces else {}
            _make_room(connection, replaces=replaces)
            schema = reader.about["schema"]
            if schema not in migrations.REVISIONS:
                raise BackupUnusable(
                    f"the backup is of a newer version of slapos (its schema is {schema}, this "
                    f"version knows up to {migrations.HEAD}): restore it with that version"
                )
            migrations.run(connection, schema)
            _load(connection, reader)
            _number_on(connection, reader.about["numbers"], replaced)
            if schema != migrations.HEAD:
                migrations.run(connection, migrations.HEAD)
            _begin_anew(connection, identifiers)
            if before_commit is not None:
                before_commit()
    return Restored(schema=schema, made_at=reader.about["made_at"])


def _make_room(connection: Connection, *, replaces: bool) -> None:
    names = inspect(connection).get_table_names()
    if names and not replaces:
        raise BackupUnusable(
            "the database holds something already: name an empty one, or give --force to have all "
            "that is in it replaced by the backup"
        )
    cascade = " CASCADE" if connection.dialect.name == "postgresql" else ""
    for name in names:
        connection.exec_driver_sql(f"DROP TABLE {_quoted(connection, name)}{cascade}")


def _load(connection: Connection, reader: Reader) -> None:
    """Put the rows of all tables in place of those that migrations have made."""
    foreign_keys: Sequence[Row[str, str, str]] = ()
    if connection.dialect.name == "postgresql":
        foreign_keys = connection.execute(_FOREIGN_KEYS).all()
    for table, name, _ in foreign_keys:  # checked once all is there
        connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    known = set(inspect(connection).get_table_names()) - {VERSION_TABLE}
    for name in known:
        connection.exec_driver_sql(f"DELETE FROM {_quoted(connection, name)}")
    for head, rows in reader.tables():
        if head["table"] not in known:
            raise BackupUnusable(f"the backup has a table {head['table']}, which is not known")
        _load_table(connection, head, rows)
    for table, name, definition in foreign_keys:
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")


def _number_on(
    connection: Connection, numbers: Mapping[str, int], replaced: Mapping[str, int]
) -> None:
    """Have tables number on: behind what the backup had, and what the replaced database had."""
    known = set(inspect(connection).get_table_names())
    for name in known & {*numbers, *KNOWN_OUTSIDE}:
        last = int(numbers.get(name, 0))
        if name in KNOWN_OUTSIDE:
            last = max(last, int(replaced.get(name, 0))) + GAP
        set_number(connection, name, last)


def _load_table(connection: Connection, head: dict[str, Any], rows: Iterator[list[Any]]) -> None:
    quote = partial(_quoted, connection)
    table, columns = quote(head["table"]), ", ".join(map(quote, head["columns"]))
    is_postgresql = connection.dialect.name == "postgresql"
    change: dict[str, Callable[[Any], Any]] = {"bytes": base64.b64decode}
    if is_postgresql:
        change["time"] = _with_zone
    changes = [(number, change[k]) for number, k in enumerate(head["kinds"]) if k in change]
    values = (_changed(row, changes) for row in rows)
    if is_postgresql:
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
            for row in values:
                copy.write_row(row)
        return
    places = ", ".join("?" * len(head["columns"]))
    statement = f"INSERT INTO {table} ({columns}) VALUES ({places})"
    while batch := [tuple(row) for row in islice(values, BATCH)]:
        connection.exec_driver_sql(statement, batch)


def _changed(row: list[Any], changes: list[tuple[int, Callable[[Any], Any]]]) -> list[Any]:
    for number, change in changes:
        if row[number] is not None:
            row[number] = change(row[number])
    return row


def _with_zone(time: str) -> str:
    return f"{time}+00"


def set_number(connection: Connection, table: str, last: int) -> None:
    """Have a table go on numbering its rows behind a number."""
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SELECT setval(pg_get_serial_sequence(quote_ident(:table), 'id'), :last)"),
            {"table": table, "last": last},
        )
        return
    row = {"table": table, "last": last}
    connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :table"), row)
    connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :last)"), row)


def _begin_anew(connection: Connection, identifiers: Identifiers) -> None:
    """Have each node hear what it has to do, whatever it has heard, and everybody sign in."""
    nodes = connection.execute(text("SELECT node_id FROM node_exchanges")).scalars().all()
    marks = [{"node": node, "mark": identifiers.token(MARK_LENGTH)} for node in nodes]
    if marks:
        connection.execute(
            text("UPDATE node_exchanges SET change = :mark WHERE node_id = :node"), marks
        )
    known = inspect(connection).get_table_names()
    for name in FORGOTTEN:
        if name in known:
            connection.exec_driver_sql(f"DELETE FROM {_quoted(connection, name)}")


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote(name)
