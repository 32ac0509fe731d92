"""The reports that the master has not got yet: an SQLite file that several processes share.

What is said of one subject (a partition's state, a release's) replaces what was said of it before,
so a month without the master leaves one row for each. Usage replaces nothing and is never dropped.
"""

import hashlib
import json
import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from slapos.protocol.errors import SlapOSError
from slapos.system.clock import Clock
from slapos.system.identifier import Identifiers
from slapos.system.process_lock import process_lock

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

VERSION = 1
SCHEMA = (
    "CREATE TABLE report (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
    " at TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, size INTEGER NOT NULL,"
    " payload TEXT NOT NULL)",
    "CREATE INDEX report_subject ON report (kind, subject)",
    f"PRAGMA user_version = {VERSION}",
)
#: Seconds that another process may hold the file.
PATIENCE = 30.0
#: Pages of 4 KiB that are written before SQLite tidies up, which takes longer than one report.
LOG_PAGES = 250
#: What SQLite calls a file that is damaged, or none of its own.
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class JournalFailed(SlapOSError):
    """The journal cannot be read or written: a full disk, no permission, a newer version."""

    code = "journal_failed"


class Kind(StrEnum):
    """What is reported; the words are those of the wire."""

    INSTANCE = "instance"
    RELEASE = "release"
    RELATED_INSTANCES = "related_instances"
    PROMISES = "promises"
    OCCUPANT = "occupant"
    USAGE = "usage"


@dataclass(frozen=True, kw_only=True)
class Report:
    """A row: `at` in ISO 8601, `size` the bytes of its payload, `sequence` the order of writing."""

    sequence: int
    id: str
    at: str
    kind: Kind
    subject: str
    size: int
    payload: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return it as it is sent."""
        return {"id": self.id, "at": self.at, "kind": str(self.kind), **self.payload}


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How many reports wait, since when the oldest does, and how many bytes of them are usage."""

    count: int = 0
    since: datetime | None = None
    usage_size: int = 0


class Journal:
    """The journal at `path`. May be shared between threads, but not by the two sides of a fork.

    A damaged file is put aside and a new one begun. All methods raise JournalFailed.
    """

    def __init__(self, path: Path, clock: Clock, identifiers: Identifiers) -> None:
        self.path = path
        self._clock = clock
        self._identifiers = identifiers
        self._turn = threading.Lock()
        self._kept: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._closes: Callable[[], object] | None = None

    @property
    def sending(self) -> Path:
        """The lock file of whoever sends what waits."""
        return self.path.with_name(f"{self.path.name}.sending")

    def add(self, kind: Kind, subject: str, payload: Mapping[str, Any], *, but: str = "") -> None:
        """Write a report in place of the one that waits about the same subject.

        When that one says the same, the field `but` of the payload aside, it stays as it is.
        """
        text = _dumped(payload)
        token = self._identifiers.token(40)
        report_id = hashlib.sha256(token.encode()).hexdigest()[:32]

        def write(connection: sqlite3.Connection) -> None:
            found = connection.execute(
                "SELECT payload FROM report WHERE kind = ? AND subject = ?", (kind, subject)
            ).fetchone()
            if found and _without(json.loads(found[0]), but) == _without(payload, but):
                return
            connection.execute("DELETE FROM report WHERE kind = ? AND subject = ?", (kind, subject))
            self._insert(connection, report_id, kind, subject, text)

        self._write(write)

    def add_usage(self, documents: Sequence[tuple[str, str]]) -> None:
        """Write documents, each with an id that is its own for ever; those that wait already stay.

        Either all are written or none.
        """

        def write(connection: sqlite3.Connection) -> None:
            for report_id, document in documents:
                text = _dumped({"document": document})
                self._insert(connection, report_id, Kind.USAGE, report_id, text)

        self._write(write)

    def _insert(
        self, connection: sqlite3.Connection, report_id: str, kind: Kind, subject: str, text: str
    ) -> None:
        connection.execute(
            "INSERT OR IGNORE INTO report (id, at, kind, subject, size, payload)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (report_id, self._clock.now().isoformat(), kind, subject, len(text), text),
        )

    def forget(self, kinds: Sequence[Kind], subject: str) -> None:
        """Remove what waits about a subject that is no more."""

        def write(connection: sqlite3.Connection) -> None:
            for kind in kinds:
                connection.execute(
                    "DELETE FROM report WHERE kind = ? AND subject = ?", (kind, subject)
                )

        if os.path.exists(self.path):
            self._write(write)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove what the master has got. A row that replaced one of these stays."""
        self._write(
            lambda connection: connection.executemany(
                "DELETE FROM report WHERE id = ?", [(each,) for each in ids]
            )
        )

    def following(self, sequence: int, *, count: int, size: int) -> list[Report]:
        """Return the oldest rows after one: `count` and `size` bytes at most, but at least one."""
        if not os.path.exists(self.path):
            return []

        def read(connection: sqlite3.Connection) -> list[Report]:
            found: list[Report] = []
            total = 0
            for row in connection.execute(
                "SELECT seq, id, at, kind, subject, size, payload FROM report"
                " WHERE seq > ? ORDER BY seq LIMIT ?",
                (sequence, count),
            ):
                total += row[5]
                if found and total > size:
                    break
                found.append(_report(row))
            return found

        return self._use(read)

    def waiting(self) -> Waiting:
        """Return how much waits; nothing is made."""
        if not os.path.exists(self.path):
            return Waiting()

        def read(connection: sqlite3.Connection) -> Waiting:
            count, at, usage_size = connection.execute(
                "SELECT count(*), (SELECT at FROM report ORDER BY seq LIMIT 1),"
                " coalesce(sum(size) FILTER (WHERE kind = ?), 0) FROM report",
                (Kind.USAGE,),
            ).fetchone()
            since = datetime.fromisoformat(at) if at else None
            return Waiting(count=count, since=since, usage_size=usage_size)

        return self._use(read)

    def check(self) -> None:
        """See that something can be written; leave all as it was."""
        if os.path.exists(self.path):
            self._use(_try_to_write)

    def close(self) -> None:
        """Let the file go; it is opened again by the next call."""
        with self._turn:
            self._let_go()

    # How.

    def _write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        def in_one(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            with connection:  # commits, or rolls back
                work(connection)

        self._use(in_one)

    def _use(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Do something with the connection; once more with a new file when this one is damaged."""
        with self._turn:
            try:
                try:
                    return work(self._connection())
                except sqlite3.DatabaseError as error:
                    self._let_go()
                    if not _is_damage(error):
                        raise
                    self._put_aside(error)
                return work(self._connection())
            except (sqlite3.Error, OSError, ValueError, TypeError) as error:
                self._let_go()
                raise JournalFailed(
                    f"the journal of reports, {self.path}, cannot be used: {error}; is there space "
                    "on the disk, and does the folder belong to who runs this?"
                ) from error

    def _connection(self) -> sqlite3.Connection:
        """Return the connection, to the file that is there now: another process may put it aside.

        It is kept: closing the last one would cost more than any report.
        """
        if self._kept is not None and _identity(self.path) == self._identity:
            return self._kept
        self._let_go()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A report repeats what programs printed: not for other partitions. SQLite gives the files
        # that it puts beside this one the same mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        identity = _identity(self.path)
        connection = self._open()
        self._closes = weakref.finalize(self, connection.close)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            self._make_schema(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        self._kept, self._identity = connection, identity
        return connection

    def _let_go(self) -> None:
        self._kept = None
        if self._closes is not None:
            self._closes()

    def _open(self) -> sqlite3.Connection:
        # Whichever thread has its turn.
        return sqlite3.connect(
            self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
        )

    def _make_schema(self, connection: sqlite3.Connection) -> None:
        # No two at a time: SQLite does not wait for another one that changes the mode.
        with self._lock():
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise ValueError(
                    f"it is of version {version}, and this slapos knows up to {VERSION}"
                )
            if version == 0:
                for statement in SCHEMA:
                    connection.execute(statement)
            connection.execute("COMMIT")

    def _put_aside(self, damage: sqlite3.DatabaseError) -> None:
        moment = self._clock.now().strftime("%Y%m%dT%H%M%S.%fZ")
        with self._lock():
            # Meanwhile another one may have done so.
            with suppress(sqlite3.DatabaseError), closing(self._open()) as connection:
                if connection.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",):
                    return
            aside = self.path.with_name(f"{self.path.name}.damaged-{moment}")
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
        logger.error(
            "the journal of reports was damaged (%s); it is kept as %s, and a new one is begun. "
            "States of instances and releases are told again when they change; usage that waited "
            "in it is only there: 'sqlite3 %s .recover' may save it",
            *(damage, aside, aside),
        )

    def _lock(self) -> Any:
        return process_lock(self.path.with_name(f"{self.path.name}.lock"), patience=inf)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _try_to_write(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "INSERT INTO report (id, at, kind, subject, size, payload) VALUES ('', '', '', '', 0, '')"
    )
    connection.execute("ROLLBACK")


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _DAMAGED


def _report(row: Sequence[Any]) -> Report:
    sequence, report_id, at, kind, subject, size, payload = row
    return Report(
        sequence=sequence,
        id=report_id,
        at=at,
        kind=Kind(kind),
        subject=subject,
        size=size,
        payload=json.loads(payload),
    )


def _dumped(payload: Mapping[str, Any]) -> str:
    return json.dumps(payload, separators=(",", ":"))


def _without(payload: Mapping[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name != field}
