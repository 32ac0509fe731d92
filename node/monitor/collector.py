"""`collector.db`: the tables that promises and monitors of releases have always read.

What they are is an interface: names, units and the users' names in them. They hold what is recent;
what is older is thinned out. Nothing of ours is read from here: a partition's user may read the
file, and so may lock it.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from slapos.node.monitor.database import PATIENCE, Database, used_bytes
from slapos.node.monitor.machine import Machine
from slapos.node.monitor.processes import ProcessSample

NAME = "collector.db"
#: Columns of each table; each also has date (YYYY-MM-DD), time (HH:MM:SS), both UTC, and reported.
TABLES = {
    "user": (
        "partition text, pid real, process text, cpu_percent real, cpu_time real, "
        "cpu_num_threads real, memory_percent real, memory_rss real, io_rw_counter real, "
        "io_cycles_counter real"
    ),
    "folder": "partition text, disk_used real",
    "computer": (
        "cpu_num_core real, cpu_frequency real, cpu_type text, memory_size real, "
        "memory_type text, partition_list text"
    ),
    "system": (
        "loadavg real, cpu_percent real, memory_used real, memory_free real, net_in_bytes real, "
        "net_in_errors real, net_in_dropped real, net_out_bytes real, net_out_errors real, "
        "net_out_dropped real"
    ),
    "disk": "partition text, used text, free text, mountpoint text",
    "temperature": "sensor_id name, temperature real, alarm integer",
    "heating": (
        "model_id name, sensor_id name, initial_temperature real, final_temperature real, "
        "delta_time real, zero_emission_ratio real"
    ),
}
SCHEMA = (
    *(
        f"CREATE TABLE IF NOT EXISTS {table} ({columns}, date text, time text, "
        "reported integer NULL DEFAULT 0)"
        for table, columns in TABLES.items()
    ),
    "CREATE INDEX IF NOT EXISTS user_partition_date_time ON user (partition, date, time)",
    *(f"CREATE INDEX IF NOT EXISTS {table}_date_time ON {table} (date, time)" for table in TABLES),
)
#: Of rows about processes that are so old, one minute's of so many minutes are left.
THINNED = ((timedelta(hours=1), 10), (timedelta(days=2), 60))
#: Bytes above which the oldest rows about processes go, however young they are.
MOST_BYTES = 200 * 1024 * 1024
#: What is removed at once: so many stretches of minutes are thinned out, so many old rows go.
STEP = 3
STEP_ROWS = 5000
#: Smaller folders are left out, as they always were, in KiB.
SMALLEST_FOLDER = 1024


class Collector:
    """Writes the tables."""

    def __init__(
        self,
        folder: Path,
        *,
        days: int,
        most_bytes: int = MOST_BYTES,
        patience: float = PATIENCE,
    ) -> None:
        """`days` is how long anything is kept; `patience` is in seconds, for readers."""
        self._days = timedelta(days=days)
        self._most_bytes = most_bytes
        self._database = Database(
            folder / NAME,
            SCHEMA,
            mode=0o644,  # partitions' users read it
            patience=patience,
        )
        #: Where the rows about processes begin that are not thinned out yet, for each of THINNED.
        self._thinned = dict.fromkeys((minutes for _, minutes in THINNED), ("", ""))

    @property
    def path(self) -> Path:
        """Return the file."""
        return self._database.path

    def store(
        self,
        moment: datetime,
        machine: Machine,
        busy: float,
        processes: Iterable[tuple[str, ProcessSample, float, float]],
    ) -> None:
        """Store a sample: of each process (user, itself, when it started, processors it used).

        `busy` is the part of all processors' time that was used, 0 to 1. Raises StoreFailed.
        """
        rows = _machine_rows(machine, busy)
        rows["user"] = [
            (
                user,
                process.pid,
                f"{process.pid}-{started:.2f}",
                round(share * 100, 1),
                process.cpu + process.ended_children,
                process.threads,
                process.memory * 100 / machine.memory,
                process.memory,
                process.read + process.written,
                process.calls,
            )
            for user, process, started, share in processes
        ]
        self._database.change(lambda connection: _insert(connection, moment, rows))

    def store_folders(self, moment: datetime, sizes: Sequence[tuple[str, int]]) -> None:
        """Store what folders of users hold, in bytes. Raises StoreFailed."""
        rows = [(user, size // 1024) for user, size in sizes if size // 1024 > SMALLEST_FOLDER]
        if rows:
            self._database.change(lambda connection: _insert(connection, moment, {"folder": rows}))

    def thin_out(self, moment: datetime) -> None:
        """Remove a little of what is too old. Raises StoreFailed."""

        def work(connection: sqlite3.Connection) -> None:
            for age, minutes in THINNED:
                self._thin(connection, moment - age, minutes)
            oldest = f"{moment - self._days:%Y-%m-%d}"
            for table in TABLES:
                if table != "heating":
                    _remove(connection, table, "date < ?", oldest)
            if used_bytes(connection) > self._most_bytes:
                _remove(connection, "user", "1")

        self._database.change(work)

    def _thin(self, connection: sqlite3.Connection, until: datetime, minutes: int) -> None:
        """Of each so many minutes before `until`, leave the rows of the first that has some."""
        for _ in range(STEP):
            found = connection.execute(
                "SELECT date, time FROM user WHERE (date, time) >= (?, ?) "
                "ORDER BY date, time LIMIT 1",
                self._thinned[minutes],
            ).fetchone()
            if found is None:
                return
            first = _minute(*found)
            end = first - timedelta(minutes=first.minute % minutes) + timedelta(minutes=minutes)
            if end > until:
                return
            connection.execute(
                "DELETE FROM user WHERE (date, time) >= (?, ?) AND (date, time) < (?, ?)",
                (*_written(first + timedelta(minutes=1)), *_written(end)),
            )
            self._thinned[minutes] = _written(end)


def _machine_rows(machine: Machine, busy: float) -> dict[str, list[tuple[object, ...]]]:
    network = machine.network
    return {
        "computer": [
            (
                machine.processors,
                0,
                "0",
                machine.memory,
                "0",
                ";".join(f"{disk.device}={disk.total}" for disk in machine.disks),
            )
        ],
        "system": [
            (
                machine.load,
                round(busy * 100, 1),
                machine.memory_used,
                machine.available,
                network.received,
                network.receive_errors,
                network.receive_drops,
                network.sent,
                network.send_errors,
                network.send_drops,
            )
        ],
        "disk": [(one.device, one.used, one.free, one.mount_point) for one in machine.disks],
        "temperature": [(one.sensor, one.degrees, one.alarm) for one in machine.temperatures],
    }


def _insert(
    connection: sqlite3.Connection,
    moment: datetime,
    rows: Mapping[str, Sequence[tuple[object, ...]]],
) -> None:
    date, time = _written(moment)
    for table, values in rows.items():
        names = [column.split()[0] for column in TABLES[table].split(", ")]
        places = ", ".join("?" * (len(names) + 2))
        connection.executemany(
            f"INSERT INTO {table} ({', '.join(names)}, date, time) VALUES ({places})",
            [(*value, date, time) for value in values],
        )


def _remove(connection: sqlite3.Connection, table: str, condition: str, *values: str) -> None:
    connection.execute(
        f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {condition} "
        f"ORDER BY date, time LIMIT {STEP_ROWS})",
        values,
    )


def _written(moment: datetime) -> tuple[str, str]:
    return f"{moment:%Y-%m-%d}", f"{moment:%H:%M:%S}"


def _minute(date: str, time: str) -> datetime:
    return datetime.strptime(f"{date} {time[:5]}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
