"""What a backup looks like: gzip of lines of JSON, whatever database it is from.

The first line is an object with what it is: `slapos` "backup", `format`, `schema`, `made_at`,
`from` ("sqlite" or "postgresql"), `numbers` (table → the last number given out there) and `secret`
(text of the secret file, or null). Then for each table an object with `table`, `columns` and their
`kinds`, and an array for each row. The last line is an object with `rows` and `sha256`: of all
lines before it. What was cut off has no last line.

Values are JSON's, but for kinds: a "time" is YYYY-MM-DD HH:MM:SS.FFFFFF in UTC, a "truth" 0 or 1,
"document" the text of a JSON document, "bytes" base64.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import IO, Any

from sqlalchemy import types

from slapos.protocol.errors import SlapOSError

NAME, FORMAT = "backup", 1
#: Of Alembic: what the schema is, is said in the first line.
VERSION_TABLE = "alembic_version"


class BackupUnusable(SlapOSError):
    """A file is no backup, was cut off or changed, or does not fit what is there."""

    code = "backup_unusable"


class NotOpened(BackupUnusable):
    """A backup that is encrypted cannot be decrypted: by this passphrase, or any more."""


def kind_of(column_type: types.TypeEngine[Any]) -> str:
    """Return the kind of a column's values; "" for what JSON has itself."""
    kinds: tuple[tuple[type[types.TypeEngine[Any]], str], ...] = (
        (types.DateTime, "time"),
        (types.Boolean, "truth"),
        (types.JSON, "document"),
        (types.LargeBinary, "bytes"),
    )
    return next((kind for cls, kind in kinds if isinstance(column_type, cls)), "")


class Writer:
    """Writes the lines of a backup."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.rows = 0

    def head(self, **told: object) -> None:
        """Write an object: the first line, or the beginning of a table."""
        self._write(json.dumps(told).encode())

    def row(self, values: list[Any]) -> None:
        """Write a row."""
        self.rows += 1
        self._write(json.dumps(values, separators=(",", ":")).encode())

    def end(self) -> None:
        """Write the last line."""
        self.head(rows=self.rows, sha256=self._digest.hexdigest())

    def _write(self, line: bytes) -> None:
        self._digest.update(line + b"\n")
        self._stream.write(line + b"\n")


class Reader:
    """Reads a backup, line by line, and sees at its end whether it was whole."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._lines = _whole_lines(stream)
        self._digest = hashlib.sha256()
        self._rows = 0
        try:
            first = self._next()
        except NotOpened:
            raise
        except BackupUnusable as error:
            raise BackupUnusable("this is no backup of a master") from error
        if not isinstance(first, dict) or first.get("slapos") != NAME:
            raise BackupUnusable("this is no backup of a master")
        if first.get("format") != FORMAT:
            raise BackupUnusable(
                f"the backup has the format {first.get('format')}, this version reads {FORMAT}: "
                "restore it with the version of slapos that made it, or a newer one"
            )
        self.about: dict[str, Any] = first

    def tables(self) -> Iterator[tuple[dict[str, Any], Iterator[list[Any]]]]:
        """Yield each table's object and its rows, which have to be read before the next table.

        Raises BackupUnusable at the end when something was lost or changed.
        """
        head: list[Any] = [self._next()]

        def rows() -> Iterator[list[Any]]:
            while isinstance(line := self._next(), list):
                self._rows += 1
                yield line
            head[0] = line

        while "table" in head[0]:
            yield head[0], rows()

    def _next(self) -> Any:
        try:
            raw = next(self._lines)
            line = json.loads(raw)
        except StopIteration:
            raise BackupUnusable("the backup was cut off: it has no end") from None
        except (OSError, EOFError, ValueError) as error:
            raise BackupUnusable(f"the backup is damaged: {error}") from error
        if isinstance(line, dict) and "sha256" in line:
            if (line["sha256"], line["rows"]) != (self._digest.hexdigest(), self._rows):
                raise BackupUnusable("the backup was changed: its checksum is another one")
            return line
        self._digest.update(raw)
        return line


def _whole_lines(stream: IO[bytes]) -> Iterator[bytes]:
    for line in stream:
        if not line.endswith(b"\n"):
            return
        yield line
