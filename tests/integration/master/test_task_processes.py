"""Several processes do the tasks of one database: each event has its effect once, whoever dies."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text

from slapos.master import migrations
from slapos.master.database import Database, open_database
from slapos.master.settings import database_url
from slapos.master.tasks.task import sense
from tests.integration.master import task_process

EVENTS = 300


@pytest.fixture
def shared(empty_database_uri: str) -> Iterator[Database]:
    """A database with a table for what tasks leave."""
    database = open_database(database_url(empty_database_uri))
    migrations.upgrade(database)
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE effects (key VARCHAR(40))"))
    yield database
    database.close()


class Process:
    """One of the processes."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", task_process.__name__, uri, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.popen.stdout is not None
        assert self.popen.stdout.readline() == "ready\n"

    def wake(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write("look\n")
        self.popen.stdin.flush()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.communicate(timeout=60)

    def end(self) -> int:
        if self.popen.returncode is None:
            self.popen.communicate(timeout=60)
        return self.popen.returncode


def until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def effects(database: Database) -> Counter[str]:
    with database.reading() as session:
        return Counter(session.scalars(text("SELECT key FROM effects")))


def is_all_done(database: Database) -> bool:
    with database.reading() as session:
        return not session.scalar(text("SELECT count(*) FROM task_marks"))


def test_each_event_has_its_effect_once(
    shared: Database, empty_database_uri: str, tmp_path: Path
) -> None:
    with ExitStack() as ending:
        processes = [Process(empty_database_uri, tmp_path) for _ in range(2)]
        for process in processes:
            ending.callback(process.kill)
        for number in range(EVENTS):
            with shared.writing.begin() as session:
                sense(session, task_process.NAME, f"event-{number}")
            if number % 10 == 0:
                for process in processes:
                    process.wake()
        for process in processes:
            process.wake()
        until(lambda: is_all_done(shared))
        assert effects(shared) == {f"event-{number}": 1 for number in range(EVENTS)}
        assert [process.end() for process in processes] == [0, 0]


def test_what_a_killed_process_was_at_is_done_by_another(
    shared: Database, empty_database_uri: str, tmp_path: Path
) -> None:
    (tmp_path / "stuck").touch()
    with shared.writing.begin() as session:
        for key in ("before", "stuck", "after"):
            sense(session, task_process.NAME, key)
    with ExitStack() as ending:
        first = Process(empty_database_uri, tmp_path)
        ending.callback(first.kill)
        until((tmp_path / "reached").exists)
        assert not effects(shared)
        first.kill()
        (tmp_path / "stuck").unlink()
        second = Process(empty_database_uri, tmp_path)
        ending.callback(second.kill)
        until(lambda: is_all_done(shared))
        assert effects(shared) == {"before": 1, "stuck": 1, "after": 1}
        assert second.end() == 0
