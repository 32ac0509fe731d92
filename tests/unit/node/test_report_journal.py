"""The journal of reports: what replaces what, in which order, and what comes of a damaged file."""

import logging
import sqlite3
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from slapos.node.report.journal import Journal, JournalFailed, Kind
from slapos.system.process_lock import process_lock
from tests.fakes import NOON, FakeClock, FakeIdentifiers


class Written:
    """A journal with what it needs, and what waits in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.db"
        self.clock = FakeClock()
        self.journal = Journal(self.path, self.clock, FakeIdentifiers())

    def state(self, partition: str, state: str, since: int = 0) -> None:
        self.journal.add(Kind.INSTANCE, partition, {"state": state, "since": since}, but="since")

    def said(self) -> list[str]:
        rows = self.journal.following(0, count=1000, size=1 << 30)
        return [f"{row.subject} {row.payload.get('state', '')}".strip() for row in rows]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def test_a_newer_state_replaces_the_older_one_and_comes_last(written: Written) -> None:
    written.state("a", "started")
    written.state("b", "started")
    written.state("a", "stopped")
    assert written.said() == ["b started", "a stopped"]


def test_the_same_state_again_stays_as_it_was_written(written: Written) -> None:
    written.state("a", "started", since=1)
    [row] = written.journal.following(0, count=9, size=1 << 20)
    written.clock.advance(60)
    written.state("a", "started", since=2)
    assert written.journal.following(0, count=9, size=1 << 20) == [row]


def test_kinds_do_not_replace_each_other(written: Written) -> None:
    written.state("a", "started")
    written.journal.add(Kind.RELATED_INSTANCES, "a", {"titles": ["x"]})
    written.journal.add(Kind.RELEASE, "a", {"state": "available"})
    assert len(written.said()) == 3


def test_usage_replaces_nothing_and_is_there_once_by_its_id(written: Written) -> None:
    written.journal.add_usage([("1", "one"), ("2", "two")])
    written.journal.add_usage([("2", "two"), ("3", "three")])
    assert written.said() == ["1", "2", "3"]


def test_what_replaced_a_report_that_was_being_sent_is_not_lost(written: Written) -> None:
    written.state("a", "started")
    [sent] = written.journal.following(0, count=9, size=1 << 20)
    written.state("a", "stopped")
    written.journal.remove([sent.id])
    assert written.said() == ["a stopped"]


def test_rows_come_in_pieces_that_are_small_enough(written: Written) -> None:
    written.journal.add_usage([(str(number), "x" * 100) for number in range(10)])
    first = written.journal.following(0, count=4, size=1 << 20)
    assert [row.id for row in first] == ["0", "1", "2", "3"]
    second = written.journal.following(first[-1].sequence, count=4, size=250)
    assert [row.id for row in second] == ["4", "5"]
    assert len(written.journal.following(0, count=4, size=1)) == 1


def test_what_is_said_of_something_that_is_no_more_is_forgotten(written: Written) -> None:
    written.state("a", "started")
    written.state("b", "started")
    written.journal.forget((Kind.INSTANCE, Kind.RELATED_INSTANCES), "a")
    assert written.said() == ["b started"]


def test_it_is_known_how_much_waits_and_since_when(written: Written) -> None:
    assert written.journal.waiting().count == 0
    assert not written.path.exists()
    written.journal.add_usage([("1", "x" * 100)])
    written.clock.advance(60)
    written.state("a", "started")
    waiting = written.journal.waiting()
    assert (waiting.count, waiting.since) == (2, NOON)
    assert 100 < waiting.usage_size < 200


def test_a_clock_that_jumps_a_day_changes_no_order(written: Written) -> None:
    for number, jump in enumerate((86400, -2 * 86400, 86400)):
        written.clock.advance(timedelta(seconds=jump).total_seconds())
        written.state(str(number), "started")
    assert written.said() == ["0 started", "1 started", "2 started"]


def test_only_its_owner_may_read_it(written: Written) -> None:
    written.state("a", "started")
    assert written.path.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(written.path) as connection:
        connection.execute("SELECT count(*) FROM report")
        for file in written.path.parent.iterdir():
            if file.name.startswith("journal.db-"):
                assert file.stat().st_mode & 0o777 == 0o600
    connection.close()


def test_a_damaged_file_is_put_aside_and_a_new_one_is_begun(
    written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    written.state("a", "started")
    written.journal.close()
    written.path.write_bytes(b"no database at all" * 1000)
    written.state("b", "started")
    assert written.said() == ["b started"]
    [aside] = written.path.parent.glob("journal.db.damaged-*")
    assert aside.read_bytes().startswith(b"no database")
    [told] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert str(aside) in told.getMessage()


def test_a_file_damaged_in_the_middle_is_put_aside_too(written: Written) -> None:
    written.journal.add_usage([(str(number), "x" * 3000) for number in range(50)])
    written.journal.close()
    content = bytearray(written.path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    written.path.write_bytes(content)
    written.state("b", "started")
    assert "b started" in written.said()
    assert len(list(written.path.parent.glob("journal.db.damaged-*"))) == 1


def test_a_file_that_another_process_has_put_aside_is_not_written_any_more(
    written: Written,
) -> None:
    written.state("a", "started")
    written.path.rename(written.path.with_name("aside"))
    written.state("b", "started")
    assert written.said() == ["b started"]


def test_an_empty_file_is_a_new_journal(written: Written) -> None:
    written.path.touch()
    written.state("a", "started")
    assert written.said() == ["a started"]


def test_a_journal_of_a_newer_version_is_left_as_it_is(written: Written) -> None:
    written.state("a", "started")
    written.journal.close()
    with sqlite3.connect(written.path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(JournalFailed, match="version 7"):
        written.state("a", "stopped")
    assert not list(written.path.parent.glob("*.damaged-*"))


def test_where_nothing_can_be_written_it_is_said(written: Written) -> None:
    written.path.mkdir()
    with pytest.raises(JournalFailed, match=r"journal\.db, cannot be used"):
        written.state("a", "started")


def test_to_check_it_changes_nothing(written: Written) -> None:
    written.journal.check()
    assert not written.path.exists()
    written.state("a", "started")
    written.journal.check()
    assert written.said() == ["a started"]


def test_many_threads_may_write_at_once(written: Written) -> None:
    """Also the very first time, when each of them finds no file."""

    def write(number: int) -> None:
        for step in range(5):
            written.state(f"{number}", str(step))
            written.journal.add_usage([(f"{number}.{step}", "x")])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    said = written.said()
    assert len(said) == 8 + 40
    assert {f"{number} 4" for number in range(8)} <= set(said)


def test_who_sends_hinders_nobody_from_writing(written: Written) -> None:
    with process_lock(written.journal.sending):
        written.state("a", "started")
    assert written.said() == ["a started"]
