"""`collector.db`, asked as the promises and monitors of today's releases ask."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from slapos.node.monitor.collector import TABLES, Collector
from slapos.node.monitor.database import StoreFailed
from slapos.node.monitor.machine import Disk, Machine, Network, Temperature
from slapos.node.monitor.processes import ProcessSample
from tests.fakes import NOON

GIBIBYTE = 1024**3
MACHINE = Machine(
    processors=4,
    load=0.5,
    busy=1.0,
    idle=2.0,
    memory=8 * GIBIBYTE,
    available=6 * GIBIBYTE,
    interfaces={
        "lo": Network(received=1, sent=2),
        "eth0": Network(received=10, sent=20, receive_errors=1, send_drops=3),
    },
    disks=(
        Disk(
            device="/dev/sda1",
            mount_point="/",
            total=100 * GIBIBYTE,
            used=40 * GIBIBYTE,
            free=55 * GIBIBYTE,
        ),
    ),
    temperatures=(Temperature(sensor="coretemp Core 0", degrees=55.0, alarm=0),),
)
PROCESS = ProcessSample(
    pid=7,
    parent=1,
    started=0.0,
    user=1,
    partition="slappart0",
    cpu=1.5,
    ended_children=0.5,
    threads=3,
    memory=2 * GIBIBYTE,
    read=100,
    written=20,
    calls=9,
)


@pytest.fixture
def collector(tmp_path: Path) -> Collector:
    return Collector(tmp_path, days=15)


@pytest.fixture
def ask(collector: Collector) -> Iterator[Any]:
    with closing(sqlite3.connect(collector.path)) as connection:
        yield lambda query: connection.execute(query).fetchall()


def store(collector: Collector, after: float = 0.0, *processes: ProcessSample) -> None:
    rows = [("slapuser0", one, 1000.25, 0.5) for one in processes or (PROCESS,)]
    collector.store(NOON + timedelta(seconds=after), MACHINE, 0.25, rows)


def test_each_table_has_the_columns_that_are_known(collector: Collector, ask: Any) -> None:
    store(collector)
    for table, columns in TABLES.items():
        names = [row[1] for row in ask(f"PRAGMA table_info({table})")]
        known = [column.split()[0] for column in columns.split(", ")]
        assert names == [*known, "date", "time", "reported"]
        if table not in ("folder", "heating"):
            [row] = ask(f"SELECT date, time, reported FROM {table}")
            assert row == ("2026-03-01", "12:00:00", 0)


def test_free_space_of_a_disk(collector: Collector, ask: Any) -> None:
    """As check_free_disk_space of slapos.toolbox does."""
    store(collector, 1)
    at = "time between '12:00:00' and '12:00:30' and partition='/dev/sda1'"
    [(free,)] = ask(f"SELECT free FROM disk WHERE date = '2026-03-01' AND {at}")
    assert int(free) == 55 * GIBIBYTE
    [(size,)] = ask(
        "SELECT free+used FROM disk WHERE partition='/dev/sda1' "
        "ORDER BY datetime(date || ' ' || time) DESC limit 1"
    )
    assert size == 95 * GIBIBYTE


def test_the_largest_folders(collector: Collector, ask: Any) -> None:
    sizes = [("slapuser0", 3 * GIBIBYTE), ("slapuser1", 5 * GIBIBYTE), ("slapuser2", 1000)]
    collector.store_folders(NOON, sizes)
    found = ask(
        "SELECT partition, disk_used*1024, max(datetime(date || ' ' || time)) FROM folder WHERE "
        "datetime(date || ' ' || time) >= datetime('2026-03-01 12:30', '-1 days') AND "
        "datetime(date || ' ' || time) <= datetime('2026-03-01 12:30') "
        "GROUP BY partition ORDER BY disk_used DESC limit 3"
    )
    assert found == [
        ("slapuser1", 5.0 * GIBIBYTE, "2026-03-01 12:00:00"),
        ("slapuser0", 3.0 * GIBIBYTE, "2026-03-01 12:00:00"),
    ]


def test_memory_of_the_machine(collector: Collector, ask: Any) -> None:
    """As check_computer_memory does."""
    store(collector)
    assert ask("SELECT memory_size FROM computer WHERE date = '2026-03-01' limit 1") == [
        (8 * GIBIBYTE,)
    ]
    assert ask(
        "SELECT memory_free, memory_used FROM system WHERE date = '2026-03-01' "
        "AND time between '12:00:00' and '12:00:30'"
    ) == [(6 * GIBIBYTE, 2 * GIBIBYTE)]


def test_memory_of_a_user(collector: Collector, ask: Any) -> None:
    """As check_user_memory does."""
    store(collector)
    assert ask(
        "SELECT memory_percent, memory_rss FROM user WHERE date = '2026-03-01' AND "
        "partition = 'slapuser0' AND time BETWEEN '11:58:00' AND '12:00:02' "
        "ORDER BY time DESC limit 1"
    ) == [(25, 2 * GIBIBYTE)]


def test_what_a_user_used_in_a_minute(collector: Collector, ask: Any) -> None:
    """As monitor.collect does."""
    store(collector, 0, PROCESS, replace(PROCESS, pid=8))
    [row] = ask(
        "SELECT count(pid), SUM(cpu_percent), SUM(cpu_time), SUM(cpu_num_threads), "
        "SUM(memory_percent), SUM(memory_rss), SUM(io_rw_counter), SUM(io_cycles_counter) "
        "FROM user WHERE date = '2026-03-01' AND partition='slapuser0' "
        "AND (time between '12:00:00' and '12:00:59')"
    )
    assert row == (2, 100, 4, 6, 50, 4 * GIBIBYTE, 240, 18)
    assert ask("SELECT process FROM user ORDER BY pid") == [("7-1000.25",), ("8-1000.25",)]


def test_what_the_machine_does(collector: Collector, ask: Any) -> None:
    store(collector)
    assert ask("SELECT * FROM system") == [
        (0.5, 25, 2 * GIBIBYTE, 6 * GIBIBYTE, 11, 1, 0, 22, 0, 3, "2026-03-01", "12:00:00", 0)
    ]
    assert ask("SELECT sensor_id, temperature, alarm FROM temperature") == [
        ("coretemp Core 0", 55, 0)
    ]
    assert ask("SELECT cpu_num_core, partition_list FROM computer") == [
        (4, f"/dev/sda1={100 * GIBIBYTE}")
    ]


def test_rows_about_processes_are_thinned_out_after_an_hour(collector: Collector, ask: Any) -> None:
    for minute in range(100):
        store(collector, minute * 60 + 1)
        collector.thin_out(NOON + timedelta(minutes=minute))
    times = [time[:5] for (time,) in ask("SELECT time FROM user")]
    assert times[:6] == ["12:00", "12:10", "12:20", "12:30", "12:31", "12:32"]
    assert len(times) == 3 + 70
    assert len(ask("SELECT time FROM system")) == 100


def test_after_two_days_those_of_an_hour_are_left(collector: Collector, ask: Any) -> None:
    for minute in range(0, 180, 10):
        store(collector, minute * 60)
    for _ in range(10):  # a little at a time
        collector.thin_out(NOON + timedelta(days=3))
    assert [row[0] for row in ask("SELECT time FROM user")] == ["12:00:00", "13:00:00", "14:00:00"]


def test_what_is_older_than_its_days_goes(collector: Collector, ask: Any) -> None:
    store(collector)
    store(collector, 86400)
    collector.thin_out(NOON + timedelta(days=16))
    for table in ("user", "system", "disk", "computer", "temperature"):
        assert ask(f"SELECT date FROM {table}") == [("2026-03-02",)]


def test_too_large_a_file_loses_the_oldest_processes(tmp_path: Path) -> None:
    collector = Collector(tmp_path, days=15, most_bytes=0)
    store(collector)
    collector.thin_out(NOON)
    with closing(sqlite3.connect(collector.path)) as connection:
        assert connection.execute("SELECT count(*) FROM user").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM system").fetchone() == (1,)


def test_everybody_may_read_it_and_nobody_else_write(collector: Collector) -> None:
    store(collector)
    assert collector.path.stat().st_mode & 0o777 == 0o644
    assert collector.path.parent.stat().st_mode & 0o777 == 0o755


def test_a_database_with_what_slapos_core_wrote_is_gone_on_with(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "collector.db")) as connection:
        columns = TABLES["disk"]
        more = "date text, time text, reported integer NULL DEFAULT 0"
        connection.execute(f"CREATE TABLE disk ({columns}, {more})")
        connection.execute("INSERT INTO disk VALUES ('a', '1', '2', '/', '2026-03-01', '0:0:0', 1)")
        connection.commit()
    collector = Collector(tmp_path, days=15)
    store(collector)
    with closing(sqlite3.connect(collector.path)) as connection:
        assert len(connection.execute("SELECT * FROM disk").fetchall()) == 2


def test_a_reader_that_holds_the_file_is_not_waited_for_long(tmp_path: Path) -> None:
    collector = Collector(tmp_path, days=15, patience=0.01)
    store(collector)
    with closing(sqlite3.connect(collector.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM disk").fetchone()
        with pytest.raises(StoreFailed, match="locked"):
            store(collector, 60)
    store(collector, 120)
