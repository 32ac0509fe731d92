"""What partitions used: by the minute, later by ten minutes and by the hour; and in all each day.

It is a file of the node's own, `history.db`, which no partition's user can read or lock. In it the
machine is the partition ''.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path

from slapos.node.monitor.database import Database, used_bytes
from slapos.node.monitor.processes import ProcessSample
from slapos.node.monitor.usage import Look, Usage

NAME = "history.db"
MACHINE = ""
MINUTE, TEN_MINUTES, HOUR, DAY = 60, 600, 3600, 86400
#: From which means the means of so many seconds are made.
MADE_OF = {TEN_MINUTES: MINUTE, HOUR: TEN_MINUTES}
#: Seconds for which means of so many seconds are kept at most.
KEPT = {MINUTE: 2 * DAY, TEN_MINUTES: 14 * DAY, HOUR: 400 * DAY}
#: Seconds for which they are kept, and no longer, when the file is too large.
KEPT_AT_LEAST = {MINUTE: 2 * HOUR, TEN_MINUTES: 2 * DAY, HOUR: 7 * DAY}
#: Days for which the sums of a day are kept, as text that SQLite understands.
SUMS_KEPT = "-400 days"
MOST_BYTES = 200 * 1024 * 1024
#: What is done at once: so many stretches summed up, so many rows removed.
STEP = 3
STEP_ROWS = 5000

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS mean (span INTEGER, at INTEGER, partition TEXT, seconds REAL,"
    " cpu REAL, memory REAL, most_memory REAL, processes REAL, threads REAL, read REAL,"
    " written REAL, received REAL, sent REAL, disk REAL,"
    " PRIMARY KEY (span, at, partition)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS day (date TEXT, partition TEXT, part INTEGER, state INTEGER,"
    " seconds REAL, cpu REAL, memory REAL, disk REAL, read REAL, written REAL,"
    " received REAL, sent REAL, PRIMARY KEY (date, partition, part)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS day_state ON day (state, date) WHERE state < 2",
    "CREATE TABLE IF NOT EXISTS folder (partition TEXT PRIMARY KEY, at REAL, size INTEGER)",
    "CREATE TABLE IF NOT EXISTS last_look (only INTEGER PRIMARY KEY, content TEXT)",
)
#: States of a day's sums: they grow; they never change again; they were handed over.
OPEN, FIXED, HANDED_OVER = range(3)

_MEAN = (
    "INSERT INTO mean VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (span, at, partition) DO UPDATE SET seconds = seconds + excluded.seconds,"
    " cpu = cpu + excluded.cpu, memory = excluded.memory,"
    " most_memory = max(most_memory, excluded.most_memory), processes = excluded.processes,"
    " threads = excluded.threads, read = read + excluded.read,"
    " written = written + excluded.written, received = received + excluded.received,"
    " sent = sent + excluded.sent, disk = excluded.disk"
)
_LONGER = (
    "INSERT OR REPLACE INTO mean SELECT ?, ?, partition, sum(seconds), sum(cpu), {memory},"
    " max(most_memory), {processes}, {threads}, sum(read), sum(written), sum(received), sum(sent),"
    " {disk} FROM mean WHERE span = ? AND at >= ? AND at < ? GROUP BY partition"
).format(
    **{
        name: f"coalesce(sum({name} * seconds) / nullif(sum(seconds), 0), avg({name}))"
        for name in ("memory", "processes", "threads", "disk")
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DaySum:
    """What a partition used in a day, or in a part of it: seconds of a processor, and bytes.

    `memory` and `disk` are in byte-seconds, `seconds` is how long it was measured.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    disk: float = 0.0
    read: float = 0.0
    written: float = 0.0
    received: float = 0.0
    sent: float = 0.0

    @property
    def is_some(self) -> bool:
        """Whether anything was used."""
        return any((self.cpu, self.memory, self.disk, self.received, self.sent))

    def __add__(self, other: "DaySum") -> "DaySum":
        pairs = zip(_amounts(self), _amounts(other), strict=True)
        return DaySum(**dict(zip(_AMOUNTS, (one + more for one, more in pairs), strict=True)))

    @classmethod
    def of(cls, usage: Usage, longest: float) -> "DaySum":
        """Return it for what was used since the last sample; memory and disk count `longest` s."""
        seconds = min(usage.seconds, longest)
        return cls(
            seconds=seconds,
            cpu=usage.cpu,
            memory=usage.memory * seconds,
            disk=(usage.disk or 0) * seconds,
            read=usage.read,
            written=usage.written,
            received=usage.received or 0,
            sent=usage.sent or 0,
        )


_AMOUNTS = tuple(field.name for field in fields(DaySum))
_amounts = attrgetter(*_AMOUNTS)


@dataclass(frozen=True, kw_only=True)
class Day:
    """The sums of a partition's day. There is a second part when the clock was set back."""

    date: str
    partition: str
    part: int
    used: DaySum


class History:
    """The file. All methods raise StoreFailed; what they write is written whole or not at all."""

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self._database = Database(folder / NAME, SCHEMA, mode=0o600)
        self._most_bytes = most_bytes

    @property
    def path(self) -> Path:
        """Return the file."""
        return self._database.path

    def store(
        self,
        at: float,
        usages: Mapping[str, Usage],
        days: Mapping[tuple[str, str], DaySum],
        look: Look,
    ) -> None:
        """Store a sample: what was used, what that adds to each (date, partition), and the look."""
        minute = int(at) - int(at) % MINUTE
        means = [
            (
                *(MINUTE, minute, partition, one.seconds, one.cpu, one.memory, one.memory),
                *(one.processes, one.threads, one.read, one.written, one.received, one.sent),
                one.disk,
            )
            for partition, one in usages.items()
        ]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(_MEAN, means)
            _add_days(connection, days)
            connection.execute(
                "INSERT OR REPLACE INTO last_look VALUES (1, ?)", (_look_text(look),)
            )

        self._database.change(work)

    def last_look(self) -> Look | None:
        """Return the look of the last sample that was stored."""
        row = self._database.read(
            lambda connection: connection.execute("SELECT content FROM last_look").fetchone()
        )
        return _look(row[0]) if row else None

    def last_usages(self) -> tuple[int, dict[str, Usage]]:
        """Return when the last sample was (seconds since 1970, to the minute), and what it was."""

        def work(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
            return connection.execute(
                "SELECT at, partition, seconds, cpu, memory, processes, threads, read, written,"
                " received, sent, disk FROM mean WHERE span = ?1"
                " AND at = (SELECT max(at) FROM mean WHERE span = ?1)",
                (MINUTE,),
            ).fetchall()

        rows = self._database.read(work) or []
        names = [field.name for field in fields(Usage)]
        usages = {str(row[1]): Usage(**dict(zip(names, row[2:], strict=True))) for row in rows}  # type: ignore[arg-type]
        return (int(str(rows[0][0])) if rows else 0), usages

    # The sizes of folders.

    def sizes(self) -> dict[str, tuple[float, int]]:
        """Return when each partition's folder was last measured, and its bytes."""
        rows = self._database.read(
            lambda connection: connection.execute("SELECT * FROM folder").fetchall()
        )
        return {partition: (at, size) for partition, at, size in rows or []}

    def store_size(self, partition: str, at: float, size: int) -> None:
        """Store what a partition's folder holds, in bytes."""
        self._database.change(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO folder VALUES (?, ?, ?)", (partition, at, size)
            )
        )

    # Days.

    def fix_days(self, *, before: str = "9999", partition: str | None = None) -> None:
        """Let the sums of days before a date, or all of one partition's, never change again."""
        self._database.change(
            lambda connection: connection.execute(
                "UPDATE day SET state = ? WHERE state = ? AND date < ? AND partition = "
                "coalesce(?, partition)",
                (FIXED, OPEN, before, partition),
            )
        )

    def fixed_days(self, most: int) -> list[Day]:
        """Return the oldest days that are to be handed over."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT date, partition, part, seconds, cpu, memory, disk, read, written, received,"
                " sent FROM day WHERE state = ? ORDER BY date LIMIT ?",
                (FIXED, most),
            ).fetchall()
        )
        return [
            Day(
                date=row[0],
                partition=row[1],
                part=row[2],
                used=DaySum(**dict(zip(_AMOUNTS, row[3:], strict=True))),
            )
            for row in rows or []
        ]

    def handed_over(self, days: Sequence[Day]) -> None:
        """Remember that these were handed over."""
        self._database.change(
            lambda connection: connection.executemany(
                "UPDATE day SET state = ? WHERE date = ? AND partition = ? AND part = ?",
                [(HANDED_OVER, one.date, one.partition, one.part) for one in days],
            )
        )

    # What is older.

    def tidy(self, at: float) -> None:
        """Make some means of longer times, and remove a little of what is too old."""

        def work(connection: sqlite3.Connection) -> None:
            for span, shorter in MADE_OF.items():
                for _ in range(STEP):
                    _make_longer(connection, span, shorter, at)
            is_large = used_bytes(connection) > self._most_bytes
            for span, kept in KEPT.items():
                oldest = at - (KEPT_AT_LEAST[span] if is_large else kept)
                connection.execute(
                    "DELETE FROM mean WHERE (span, at, partition) IN (SELECT span, at, partition "
                    "FROM mean WHERE span = ? AND at < ? ORDER BY at LIMIT ?)",
                    (span, oldest, STEP_ROWS),
                )
            connection.execute(
                "DELETE FROM day WHERE state = ? AND date < date(?, 'unixepoch', ?)",
                (HANDED_OVER, at, SUMS_KEPT),
            )

        self._database.change(work)


def _add_days(connection: sqlite3.Connection, days: Mapping[tuple[str, str], DaySum]) -> None:
    added = ", ".join(f"{name} = {name} + excluded.{name}" for name in _AMOUNTS)
    connection.executemany(
        f"INSERT INTO day (date, partition, part, state, {', '.join(_AMOUNTS)}) VALUES (?1, ?2, "
        "(SELECT coalesce(max(part + (state > 0)), 0) FROM day WHERE date = ?1 AND partition = ?2),"
        f" 0, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (date, partition, part) "
        f"DO UPDATE SET {added}",
        [(*key, *_amounts(one)) for key, one in days.items()],
    )


def _make_longer(connection: sqlite3.Connection, span: int, shorter: int, at: float) -> None:
    """Make the means of the next stretch of `span` seconds, unless it is not over."""
    (last,) = connection.execute("SELECT max(at) FROM mean WHERE span = ?", (span,)).fetchone()
    (first,) = connection.execute(
        "SELECT min(at) FROM mean WHERE span = ? AND at >= ?",
        (shorter, last + span if last is not None else 0),
    ).fetchone()
    if first is None:
        return
    begin = first - first % span
    # A little later: the last of the shorter ones has to be there.
    if begin + span + shorter <= at:
        connection.execute(_LONGER, (span, begin, shorter, begin, begin + span))


def _look_text(look: Look) -> str:
    values = attrgetter(*(field.name for field in fields(ProcessSample)))
    others = {field.name: getattr(look, field.name) for field in fields(Look)}
    others["processes"] = [values(sample) for sample in look.processes]
    return json.dumps(others, separators=(",", ":"))


def _look(text: str) -> Look | None:
    names = [field.name for field in fields(ProcessSample)]
    try:
        content = json.loads(text)
        content["processes"] = tuple(
            ProcessSample(**dict(zip(names, row, strict=True))) for row in content["processes"]
        )
        return Look(**content)
    except (ValueError, TypeError, KeyError):  # of another version
        return None
