"""`slapos node collect` on a node with real processes under a real supervisord."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from slapos.node.assembly import make_doors
from slapos.node.monitor.history import DaySum, History
from slapos.node.monitor.monitor import Monitor
from slapos.node.monitor.usage import Usage
from slapos.node.settings import read_node_settings
from slapos.protocol.states import InstanceState
from slapos.system.clock import SystemClock
from slapos.system.process_lock import process_lock
from tests.fakes import FakeClock
from tests.integration.node.world import IS_ROOT, NOBODY, World, is_running, until

USER = NOBODY.pw_name if IS_ROOT else None
#: A service that keeps a processor busy, in children of its own, and holds 32 MiB.
BUSY = """\
#!/usr/bin/python3
import os, time
held = bytearray(32 * 1024 * 1024)
while True:
    child = os.fork()
    if not child:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.01)
"""


@pytest.fixture
def busy(world: World) -> World:
    world.release(world.installing("busy", BUSY))
    world.want()
    world.want("slappart1", url="http://example.com/idle/software.cfg")
    world.release(world.installing("idle"), url="http://example.com/idle/software.cfg")
    assert world.run("instance", "--now").returncode == 0
    return world


def read(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def folder(world: World) -> Path:
    return world.layout.measurements


def collect(world: World) -> dict[str, Usage]:
    """Sample once, and return what the history has of that."""
    answer = world.run("collect")
    assert answer.returncode == 0, answer.stdout
    return History(folder(world)).last_usages()[1]


def test_each_partition_counts_with_what_its_processes_use(busy: World) -> None:
    query = "SELECT partition, cpu, memory, processes FROM mean WHERE partition != ''"
    collect(busy)
    until(lambda: collect(busy)["slappart0"].cpu > 0.2, "the busy partition used a processor")
    found = {row[0]: row[1:] for row in read(folder(busy) / "history.db", query)}
    assert found["slappart1"][0] < found["slappart0"][0]
    assert found["slappart0"][1] > 32 * 1024 * 1024 > found["slappart1"][1] > 0
    assert found["slappart1"][2] == 1
    # As an ordinary user, the test and the master are that user's too, and of no partition.
    days = read(folder(busy) / "history.db", "SELECT partition FROM day")
    assert {row[0] for row in days} == {"slappart0", "slappart1"}


def test_a_partitions_user_can_read_what_promises_need(busy: World) -> None:
    collect(busy)
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=5); "
        "print(c.execute(sys.argv[2], sys.argv[3:]).fetchall())"
    )
    name = NOBODY.pw_name if IS_ROOT else subprocess.getoutput("id -un")
    query = "SELECT count(*) > 0, sum(memory_rss) > 0 FROM user WHERE partition = ?"
    answer = subprocess.run(
        [sys.executable, "-c", program, str(folder(busy) / "collector.db"), query, name],
        user=USER,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert answer.stdout.strip() == "[(1, 1)]", answer.stderr
    if IS_ROOT:
        with pytest.raises(subprocess.CalledProcessError):
            subprocess.run(
                ["cat", str(folder(busy) / "history.db")],
                user=USER,
                check=True,
                capture_output=True,
            )


def test_how_much_is_in_a_folder_is_measured_once_in_an_interval(busy: World) -> None:
    (busy.partition() / "large").write_bytes(b"x" * 3 * 1024 * 1024)
    (busy.partition() / "elsewhere").symlink_to("/usr")
    collect(busy)
    query = "SELECT disk_used FROM folder"
    [(size,)] = read(folder(busy) / "collector.db", query)
    assert 3 * 1024 <= size < 4 * 1024
    assert collect(busy)["slappart0"].disk == size * 1024
    assert len(read(folder(busy) / "collector.db", query)) == 1


def test_while_another_process_samples_it_is_left_to_that(world: World) -> None:
    with process_lock(world.layout.monitor_lock):
        answer = world.run("collect")
    assert answer.returncode == 0
    assert "another process measures" in answer.stdout
    assert not folder(world).exists()


def test_a_full_disk_stops_storing_and_nothing_else(
    busy: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory in place of the file is what root cannot write either."""
    doors = make_doors(read_node_settings(busy.configuration, {}))
    monitor = Monitor(doors)
    assert monitor.sample()
    for name in ("collector.db", "history.db"):
        (folder(busy) / name).rename(folder(busy) / f"{name}.kept")
        (folder(busy) / name).mkdir()
    assert not monitor.sample()
    assert not monitor.sample()
    said = [record.message for record in caplog.records if "monitoring goes on" in record.message]
    assert len([one for one in said if "collector.db" in one]) == 1
    assert 'slapos_partition_processes{partition="slappart1"} 1' in doors.metrics.text()
    for name in ("collector.db", "history.db"):
        (folder(busy) / name).rmdir()
        (folder(busy) / f"{name}.kept").rename(folder(busy) / name)
    assert monitor.sample()
    [(seconds,)] = read(
        folder(busy) / "history.db", "SELECT seconds FROM day WHERE partition = 'slappart0'"
    )
    [(minutes,)] = read(
        folder(busy) / "history.db", "SELECT sum(seconds) FROM mean WHERE partition = 'slappart0'"
    )
    assert seconds > minutes  # what could not be stored is in the day's sum


def usage_reports(world: World) -> list[str]:
    path = world.layout.journal
    query = "SELECT payload FROM report WHERE kind = 'usage'"
    return [row[0] for row in read(path, query)] if path.exists() else []


def test_a_day_is_reported_once_also_when_the_clock_jumps(busy: World) -> None:
    clock = FakeClock(SystemClock().now())
    settings = read_node_settings(busy.configuration, {})

    def restarted() -> Monitor:
        return Monitor(replace(make_doors(settings), clock=clock))

    history = History(folder(busy))
    monitor = restarted()
    monitor.sample()
    until(lambda: monitor.sample() and sum_of(history, clock).cpu > 0.1)
    today = f"{clock.now():%Y-%m-%d}"
    clock.advance(86400)
    monitor.sample()
    first = [one for one in usage_reports(busy) if today in one]
    assert len(first) == 2  # slappart0 and slappart1
    restarted().sample()
    clock.advance(-86400)  # and back: what is used now is reported when the day is over again
    late = restarted()
    until(lambda: late.sample() and sum_of(history, clock).cpu > 0)
    assert len([one for one in usage_reports(busy) if today in one]) == 2
    clock.advance(86400 + timedelta(hours=1).total_seconds())
    late.sample()
    reports = [one for one in usage_reports(busy) if today in one]
    assert len(reports) == 4
    assert len(set(reports)) == 4


def sum_of(history: History, clock: FakeClock) -> DaySum:
    rows = read(
        history.path,
        "SELECT cpu FROM day WHERE state = 0 AND partition = 'slappart0' "
        f"AND date = '{clock.now():%Y-%m-%d}'",
    )
    return DaySum(cpu=sum(row[0] for row in rows))


def test_what_a_destroyed_partition_used_is_reported_before_it_is_gone(busy: World) -> None:
    collect(busy)
    until(lambda: collect(busy)["slappart0"].cpu, "it used a processor")
    busy.want(state=InstanceState.DESTROYED, timestamp="2")
    assert busy.run("report").returncode == 0
    told = [call for call, _ in busy.master.told]
    assert told.index("useComputer") < told.index("destroyedComputerPartition")
    [document] = [form["use_string"] for call, form in busy.master.told if call == "useComputer"]
    assert "cpu_load_percent" in document
    assert "slappart0" in document
    assert "slappart1" not in document


def test_killed_at_any_moment_it_goes_on(busy: World) -> None:
    command = (
        "import sys; from slapos.command.main import main; sys.exit(main(sys.argv[1:]))",
        *("node", "collect", "--cfg", str(busy.configuration)),
    )
    for delay in (0.25, 0.35, 0.45):
        process = subprocess.Popen([sys.executable, "-c", *command], stderr=subprocess.DEVNULL)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    collect(busy)
    assert read(folder(busy) / "collector.db", "PRAGMA integrity_check") == [("ok",)]
    assert read(folder(busy) / "history.db", "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.skipif(not IS_ROOT, reason="only root can give each partition a user of its own")
def test_with_users_of_their_own_even_a_hidden_process_counts(busy: World) -> None:
    """One that left its group and cannot be looked into is its user's all the same."""
    os.chown(busy.partition("slappart1"), 54321, NOBODY.pw_gid)
    hidden = (
        "import ctypes, os, time; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print(1, flush=True); "
        "time.sleep(600)"
    )
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", hidden], user=54321, env={}, stdout=subprocess.PIPE, cwd="/"
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert collect(busy)["slappart1"].processes == 2  # its service is the other one
        assert is_running(process.pid)
    finally:
        process.kill()
        process.communicate()
