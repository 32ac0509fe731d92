"""Means of longer times, sums of days, and what is kept."""

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slapos.node.monitor.database import StoreFailed
from slapos.node.monitor.history import (
    DAY,
    HOUR,
    MINUTE,
    NAME,
    TEN_MINUTES,
    DaySum,
    History,
)
from slapos.node.monitor.processes import ProcessSample
from slapos.node.monitor.usage import Look, Usage

#: A whole hour, at noon.
NOON = 1_772_366_400
TODAY = "2026-03-01"
PROCESS = ProcessSample(
    pid=7,
    parent=1,
    started=0.25,
    user=1,
    partition="slappart0",
    cpu=1.5,
    ended_children=0.0,
    threads=1,
    memory=10,
)
LOOK = Look(boot="a", uptime=5.5, processes=(PROCESS,), networks={"slappart0": (1, 2)})
USED = Usage(seconds=60, cpu=6, memory=100, processes=2, threads=4, read=10, written=20)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path)


def store(history: History, at: float, usage: Usage = USED, **days: DaySum) -> None:
    sums = {(TODAY, reference): used for reference, used in days.items()}
    history.store(at, {"slappart0": usage}, sums, LOOK)


def rows(tmp_path: Path, query: str) -> list[Any]:
    with sqlite3.connect(tmp_path / NAME) as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found


def test_the_last_sample_is_remembered(history: History) -> None:
    assert (history.last_look(), history.last_usages()) == (None, (0, {}))
    store(history, NOON + 5)
    store(history, NOON + 65, replace(USED, disk=7, received=8, sent=9))
    at, usages = history.last_usages()
    assert (at, usages) == (NOON + 60, {"slappart0": replace(USED, disk=7, received=8, sent=9)})
    look = history.last_look()
    assert look is not None
    assert (look.processes, look.uptime) == ((PROCESS,), 5.5)


def test_longer_means_are_made_of_shorter_ones(history: History, tmp_path: Path) -> None:
    for minute in range(131):
        memory = 100 if minute % 2 else 300
        store(history, NOON + minute * 60, replace(USED, memory=memory, disk=minute))
        history.tidy(NOON + minute * 60)
    long = "SELECT at, seconds, cpu, memory, most_memory, disk FROM mean WHERE span = "
    tens = rows(tmp_path, f"{long}{TEN_MINUTES}")
    assert tens[0] == (NOON, 600, 60, 200, 300, 4.5)
    assert [row[0] for row in tens] == [NOON + 600 * n for n in range(12)]
    assert rows(tmp_path, f"{long}{HOUR}") == [
        (NOON, 3600, 360, 200, 300, 29.5),
        (NOON + HOUR, 3600, 360, 200, 300, 89.5),
    ]


def test_a_mean_counts_each_minute_as_long_as_it_was(history: History, tmp_path: Path) -> None:
    store(history, NOON, replace(USED, seconds=30, memory=100))
    store(history, NOON + 60, replace(USED, seconds=90, memory=200))
    history.tidy(NOON + 700)
    query = f"SELECT seconds, memory FROM mean WHERE span = {TEN_MINUTES}"
    assert rows(tmp_path, query) == [(120, 175)]


def test_after_a_gap_it_goes_on_with_what_there_is(history: History, tmp_path: Path) -> None:
    for at in (NOON, NOON + 7 * DAY, NOON + 7 * DAY + 600):
        store(history, at)
        history.tidy(at)
    history.tidy(NOON + 7 * DAY + 1260)
    query = f"SELECT at FROM mean WHERE span = {TEN_MINUTES}"
    assert rows(tmp_path, query) == [(NOON,), (NOON + 7 * DAY,), (NOON + 7 * DAY + 600,)]


def test_what_is_too_old_goes(history: History, tmp_path: Path) -> None:
    store(history, NOON)
    store(history, NOON + 3 * DAY)
    history.tidy(NOON + 3 * DAY)
    query = f"SELECT at FROM mean WHERE span = {MINUTE}"
    assert rows(tmp_path, query) == [(NOON + 3 * DAY,)]


def test_a_file_that_is_too_large_keeps_less(tmp_path: Path) -> None:
    history = History(tmp_path, most_bytes=0)
    store(history, NOON)
    store(history, NOON + 3 * HOUR)
    history.tidy(NOON + 3 * HOUR)
    query = f"SELECT at FROM mean WHERE span = {MINUTE}"
    assert rows(tmp_path, query) == [(NOON + 3 * HOUR,)]


def test_a_day_is_the_sum_of_its_samples(history: History) -> None:
    store(history, NOON, slappart0=DaySum(cpu=1, memory=100), slappart1=DaySum(cpu=5))
    store(history, NOON + 60, slappart0=DaySum(cpu=2, memory=200))
    assert history.fixed_days(10) == []
    history.fix_days(before=TODAY)
    assert history.fixed_days(10) == []
    history.fix_days(before="2026-03-02")
    first, second = history.fixed_days(10)
    assert (first.date, first.partition, first.part) == (TODAY, "slappart0", 0)
    assert first.used == DaySum(cpu=3, memory=300)
    assert second.used == DaySum(cpu=5)
    history.handed_over([first, second])
    assert history.fixed_days(10) == []


def test_what_comes_after_a_day_was_fixed_is_another_part(history: History) -> None:
    """So it is when the clock is set a day forward, and back again."""
    store(history, NOON, slappart0=DaySum(cpu=1))
    history.fix_days(before="2026-03-02")
    store(history, NOON, slappart0=DaySum(cpu=2))
    store(history, NOON, slappart0=DaySum(cpu=4))
    [first] = history.fixed_days(10)
    assert first.used.cpu == 1
    history.handed_over([first])
    history.fix_days(before="2026-03-02")
    [second] = history.fixed_days(10)
    assert (second.part, second.used.cpu) == (1, 6)
    history.handed_over([second])
    history.fix_days()
    assert history.fixed_days(10) == []


def test_one_partition_can_be_fixed_alone(history: History) -> None:
    store(history, NOON, slappart0=DaySum(cpu=1), slappart1=DaySum(cpu=2))
    history.fix_days(partition="slappart1")
    assert [day.partition for day in history.fixed_days(10)] == ["slappart1"]


def test_memory_counts_by_its_time_and_no_long_gap() -> None:
    usage = replace(USED, seconds=100, disk=5)
    assert DaySum.of(usage, 600).memory == 100 * 100
    assert DaySum.of(replace(usage, seconds=DAY), 600) == replace(
        DaySum.of(usage, 600), seconds=600, memory=600 * 100, disk=600 * 5
    )


def test_a_damaged_file_is_put_aside(
    history: History, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).write_text("this is no database" * 100)
    with pytest.raises(StoreFailed, match="cannot be read"):
        history.last_look()
    store(history, NOON)
    assert history.last_look() is not None
    assert (tmp_path / f"{NAME}.damaged").read_text().startswith("this is no database")
    assert "was damaged" in caplog.text


def test_a_file_with_nothing_in_it_is_as_good_as_none(history: History, tmp_path: Path) -> None:
    """It is left by one that was killed when it had just begun."""
    (tmp_path / NAME).touch()
    assert history.last_look() is None
    store(history, NOON)
    assert history.last_look() is not None


def test_a_look_of_another_version_is_none(history: History, tmp_path: Path) -> None:
    store(history, NOON)
    rows(tmp_path, "UPDATE last_look SET content = '{\"boot\": 1}'")
    assert history.last_look() is None
