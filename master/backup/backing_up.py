"""Making a backup, while the master is at work: all of one moment."""

import base64
import gzip
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, inspect

from slapos.master import migrations
from slapos.master.backup.form import FORMAT, NAME, VERSION_TABLE, Writer, kind_of
from slapos.master.backup.sealing import Sealing
from slapos.master.database import Database
from slapos.system.clock import Clock

#: Gives what encrypts whatever is written into a file.
Seal = Callable[[IO[bytes]], Sealing]
#: Rows that are fetched at a time.
BATCH = 1000
#: Of gzip: more is slower, and hardly smaller.
LEVEL = 3
#: How a value of a kind is read from PostgreSQL, so that it is as SQLite stores it.
_FROM_POSTGRESQL = {
    "time": "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
    "truth": "CAST({} AS INTEGER)",
    "document": "CAST({} AS TEXT)",
}


@dataclass(frozen=True)
class BackedUp:
    """What is in a backup that was made."""

    schema: str
    rows: int


def back_up(
    database: Database,
    path: Path,
    clock: Clock,
    secret: str | None,
    seal: Seal | None = None,
) -> BackedUp:
    """Write all that is in the database, and a secret, into a file that only its owner reads.

    The file is there when it is whole; one of that name is replaced then. `seal` encrypts it.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            sealing = None if seal is None else seal(file)
            with gzip.GzipFile("", "wb", LEVEL, sealing or file, mtime=0) as stream:
                made = _write(database, Writer(stream), clock, secret)  # type: ignore[arg-type]
            if sealing is not None:
                sealing.end()
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return made


def _write(database: Database, writer: Writer, clock: Clock, secret: str | None) -> BackedUp:
    with database.reading() as session:
        connection = session.connection()
        schema = migrations.version(connection) or ""
        names = [name for name in inspect(connection).get_table_names() if name != VERSION_TABLE]
        writer.head(
            slapos=NAME,
            format=FORMAT,
            schema=schema,
            made_at=clock.now().isoformat(),
            **{"from": connection.dialect.name},
            numbers=dict(last_numbers(connection)),
            secret=secret,
        )
        for name in sorted(names):
            _write_table(connection, writer, name)
        writer.end()
    return BackedUp(schema=schema, rows=writer.rows)


def _write_table(connection: Connection, writer: Writer, name: str) -> None:
    columns = inspect(connection).get_columns(name)
    names = [column["name"] for column in columns]
    kinds = [kind_of(column["type"]) for column in columns]
    writer.head(table=name, columns=names, kinds=kinds)
    binary = [number for number, kind in enumerate(kinds) if kind == "bytes"]
    for row in _rows(connection, name, names, kinds):
        values = list(row)
        for number in binary:
            if values[number] is not None:
                values[number] = base64.b64encode(values[number]).decode()
        writer.row(values)


def _rows(connection: Connection, name: str, names: list[str], kinds: list[str]) -> Iterator[Any]:
    quote = connection.dialect.identifier_preparer.quote
    read = _FROM_POSTGRESQL if connection.dialect.name == "postgresql" else {}
    what = ", ".join(
        read.get(kind, "{}").format(quote(each)) for each, kind in zip(names, kinds, strict=True)
    )
    statement = f"SELECT {what} FROM {quote(name)}"
    streaming = connection.execution_options(stream_results=True, max_row_buffer=BATCH)
    with streaming.exec_driver_sql(statement) as found:
        for batch in found.partitions(BATCH):
            yield from batch


def last_numbers(connection: Connection) -> Iterator[tuple[str, int]]:
    """Yield each table that numbers its rows, and the last number it has given out."""
    if connection.dialect.name == "sqlite":
        if inspect(connection).has_table("sqlite_sequence"):
            for table, last in connection.exec_driver_sql("SELECT name, seq FROM sqlite_sequence"):
                yield table, last
        return
    for table in inspect(connection).get_table_names():
        sequence = connection.exec_driver_sql(
            "SELECT pg_get_serial_sequence(quote_ident(table_name), column_name) "
            "FROM information_schema.columns WHERE table_schema = current_schema() "
            "AND table_name = %(table)s AND column_name = 'id'",
            {"table": table},
        ).scalar()
        if sequence is not None:
            last, is_called = connection.exec_driver_sql(
                f"SELECT last_value, is_called FROM {sequence}"
            ).one()
            if is_called:
                yield table, last


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
