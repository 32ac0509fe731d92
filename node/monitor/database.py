"""SQLite files of the monitoring: opened when needed, and begun anew when damaged."""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from slapos.protocol.errors import SlapOSError

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

#: Of the schema; 0 is a file in which there is nothing yet.
VERSION = 1
#: Seconds to wait for a reader, which holds the file against whoever writes.
PATIENCE = 5.0
#: Of the folder: who may read a file in it has to get there.
FOLDER_MODE = 0o755
#: What SQLite calls a file that is damaged, or none of its own.
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class StoreFailed(SlapOSError):
    """What was measured cannot be stored or read: a full disk, a reader that holds the file."""

    code = "store_failed"


class Database:
    """An SQLite file, safe to share between threads: each use has a connection of its own."""

    def __init__(
        self, path: Path, schema: Sequence[str], *, mode: int, patience: float = PATIENCE
    ) -> None:
        """`schema` may be carried out again and again; `patience` is in seconds, for others."""
        self.path = path
        self._schema = schema
        self._mode = mode
        self._patience = patience
        self._is_made = False
        self._lock = threading.Lock()

    def change(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Do `work` in one transaction. Raises StoreFailed, and then nothing is changed.

        A damaged file is put aside, and a new one begun.
        """
        try:
            with self._lock:
                try:
                    return self._change(work)
                except sqlite3.DatabaseError as error:
                    if not _is_damage(error):
                        raise
                    self._put_aside(error)
                return self._change(work)
        except (sqlite3.Error, OSError) as error:
            raise StoreFailed(f"{self.path} cannot be written: {error}") from error

    def read(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer | None:
        """Return what `work` reads, None where nothing was written yet. Raises StoreFailed."""
        if not self.path.exists():
            return None
        try:
            with closing(sqlite3.connect(self.path, timeout=self._patience)) as connection:
                connection.execute("PRAGMA query_only = 1")
                # Whoever was to make the tables may have been killed before.
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                return work(connection) if version else None
        except (sqlite3.Error, OSError) as error:
            raise StoreFailed(f"{self.path} cannot be read: {error}") from error

    def _change(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        with closing(self._open()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                answer = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            return answer

    def _open(self) -> sqlite3.Connection:
        is_new = not self.path.exists()
        if is_new:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.chmod(self.path.parent, FOLDER_MODE)
            # Whatever the umask is; SQLite gives the files that it puts beside it the same mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, self._mode))
            os.chmod(self.path, self._mode)
        connection = sqlite3.connect(self.path, timeout=self._patience, isolation_level=None)
        try:
            if is_new or not self._is_made:
                # With a log beside it (WAL), who may only read could not do so while nobody writes.
                connection.execute("PRAGMA journal_mode = TRUNCATE")
                connection.execute("BEGIN IMMEDIATE")
                for statement in (*self._schema, f"PRAGMA user_version = {VERSION}"):
                    connection.execute(statement)
                connection.execute("COMMIT")
                self._is_made = True
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _put_aside(self, damage: sqlite3.DatabaseError) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged")
        for suffix in ("-wal", "-shm", "-journal", ""):
            with suppress(FileNotFoundError):
                os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
        logger.error(
            "%s was damaged (%s); it is kept as %s, and a new one is begun",
            self.path,
            damage,
            aside,
        )


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the bytes that are in use in the file."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _DAMAGED
