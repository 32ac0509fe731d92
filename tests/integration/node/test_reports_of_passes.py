"""What passes report to a master that takes many reports at once, also when that cannot be."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slapos.node.record import PartitionRecord, read_record
from slapos.protocol.states import InstanceState
from tests.integration.node.fake_master import Link
from tests.integration.node.test_report_pass import instance, reporting
from tests.integration.node.world import IS_ROOT, World

PROMISE = "#!/bin/sh\n! cat trouble 2>/dev/null\n"


@pytest.fixture
def modern(world: World) -> World:
    """A world whose master takes many reports at once."""
    world.master.takes_reports = True
    return world


def states(world: World) -> list[tuple[str, str]]:
    """(partition, state or error) as the master counted them, in order."""
    told = world.master.counted("instance")
    return [(report["partition"], report["state"] or report["error"]) for report in told]


def record(world: World) -> PartitionRecord:
    return read_record(PartitionRecord, world.layout.partition_record("slappart0"))


def test_each_change_is_told_once_with_its_order_and_since_when(modern: World) -> None:
    modern.release(modern.installing("works", PROMISE, folder="etc/promise"))
    modern.want(timestamp="5")
    trouble = modern.partition() / "trouble"
    for text in ("one", "one", "two"):
        trouble.write_text(text)
        assert modern.run("instance").returncode == 2
    trouble.unlink()
    for _ in range(2):
        assert modern.run("instance").returncode == 0
    one, two, started = modern.master.counted("instance")
    assert {report["timestamp"] for report in (one, two, started)} == {"5"}
    assert [report["state"] for report in (one, two, started)] == [None, None, "started"]
    assert one["error"] == "Promise 'works' failed with output: one"
    assert two["error"] == "Promise 'works' failed with output: two"
    # Another error is no new beginning.
    assert one["since"] == two["since"] < two["at"] < started["since"]
    assert modern.master.calls() == []


def test_a_master_that_believes_in_an_error_is_told_again_in_a_while(modern: World) -> None:
    modern.release()
    modern.want()
    modern.run("instance")
    [mistaken] = (p for p in modern.master.partitions.values() if p.reference == "slappart0")
    modern.master.partitions["slappart0"] = type(mistaken)(
        **{**vars(mistaken), "access_status": "#error it says"}
    )
    modern.run("instance")
    assert len(states(modern)) == 1
    path = modern.layout.partition_record("slappart0")
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "reported_at": document["reported_at"] - 61}))
    modern.run("instance")
    assert states(modern) == [("slappart0", "started")] * 2


def test_without_a_master_only_the_latest_state_waits(modern: World) -> None:
    modern.release()
    modern.want()
    modern.master.link = lambda: Link.CUT_BEFORE
    for state, timestamp in (
        (InstanceState.STARTED, "1"),
        (InstanceState.STOPPED, "2"),
        (InstanceState.STARTED, "3"),
    ):
        modern.want(state=state, timestamp=timestamp)
        answer = modern.run("instance")
        assert answer.returncode == 1
        assert "kept here and sent later" in answer.stdout
    assert "\n1 reports wait for the master since 20" in modern.run("status").stdout
    modern.master.link = lambda: Link.WHOLE
    assert modern.run("instance").returncode == 0
    [report] = modern.master.counted("instance")
    assert (report["state"], report["timestamp"]) == ("started", "3")
    assert "reports wait" not in modern.run("status").stdout


def test_what_could_not_be_written_down_is_reported_once_it_can(modern: World) -> None:
    modern.release("echo x >> runs")
    modern.want()
    modern.release("echo x >> runs; exit 1", url="http://example.com/bad/software.cfg")
    modern.want("slappart1", url="http://example.com/bad/software.cfg")
    modern.layout.journal.mkdir(parents=True)
    answer = modern.run("instance")
    assert answer.returncode == 1
    assert "slappart0: it is reported later: the journal of reports" in answer.stdout
    assert record(modern).reported == ""
    assert "cannot be used" in modern.run("doctor").stdout
    modern.layout.journal.rmdir()
    assert modern.run("instance").returncode == 1
    assert [partition for partition, _ in states(modern)] == ["slappart0", "slappart1"]
    for reference in ("slappart0", "slappart1"):
        assert (modern.partition(reference) / "runs").read_text() == "x\n"


def test_a_damaged_journal_is_put_aside_and_the_node_goes_on(modern: World) -> None:
    modern.release()
    modern.want()
    modern.layout.journal.parent.mkdir(parents=True)
    modern.layout.journal.write_bytes(b"half a page of something" * 400)
    answer = modern.run("instance")
    assert answer.returncode == 0
    assert "the journal of reports was damaged" in answer.stdout
    assert states(modern) == [("slappart0", "started")]
    assert "a journal that was damaged" in modern.run("doctor").stdout


def test_usage_whose_answer_was_lost_counts_once(modern: World) -> None:
    instance(modern, reporting(modern))
    fates = iter([Link.CUT_AFTER, Link.CUT_AFTER])
    modern.master.link = lambda: next(fates, Link.WHOLE)
    answer = modern.run("report")
    assert answer.returncode == 1
    assert "kept here and sent later" in answer.stdout
    (modern.partition() / "etc" / "report" / "usage").unlink()
    assert modern.run("report").returncode == 0
    assert modern.run("report").returncode == 0
    assert len(modern.master.counted("usage")) == 1
    assert list((modern.layout.state / "usage").iterdir()) == []


def test_what_waits_about_a_destroyed_instance_is_not_told_of_the_next_one(modern: World) -> None:
    modern.release("exit 1")
    modern.want()
    modern.master.link = lambda: Link.CUT_BEFORE
    assert modern.run("instance").returncode == 1
    modern.master.link = lambda: Link.WHOLE
    modern.want(state=InstanceState.DESTROYED, timestamp="2")
    modern.master.failures["v1/nodes/node/reports"] = (500, b"")
    modern.run("report")
    assert modern.master.calls()[-1] == "destroyedComputerPartition slappart0"
    modern.master.failures.clear()
    modern.run("report")
    assert states(modern) == []


@pytest.fixture
def small_state(world: World) -> Iterator[Path]:
    """A disk of 1 MiB for what the node remembers."""
    folder = world.layout.state
    folder.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "tmpfs", str(folder)]
    if not IS_ROOT or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
def test_a_full_disk_under_the_journal_loses_nothing(modern: World, small_state: Path) -> None:
    modern.release("echo x >> runs\n" + reporting(modern))
    modern.want()
    modern.master.link = lambda: Link.CUT_BEFORE
    assert modern.run("instance").returncode == 1
    assert modern.run("report").returncode == 1
    fill = small_state / "fill"
    with pytest.raises(OSError, match="No space left"):
        fill.write_bytes(b"x" * 2**21)
    modern.want(state=InstanceState.STOPPED, timestamp="2")
    for command in ("instance", "report"):
        answer = modern.run(command)
        assert answer.returncode == 1
        assert "is there space on the disk" in answer.stdout
    modern.master.link = lambda: Link.WHOLE
    fill.unlink()
    assert modern.run("instance").returncode == 0
    (modern.partition() / "etc" / "report" / "usage").unlink()
    assert modern.run("report").returncode == 0
    assert states(modern)[-1] == ("slappart0", "stopped")
    used = "".join(report["document"] for report in modern.master.counted("usage"))
    assert used.count("<quantity>42.42</quantity>") == 1


def promises(world: World) -> list[list[tuple[str, bool, str]]]:
    """What the master counted of promises, in order: (name, failed, message)."""
    return [
        [(each["name"], each["failed"], each["message"]) for each in report["results"]]
        for report in world.master.counted("promises")
    ]


def test_promises_are_told_when_one_fails_or_holds_again(modern: World) -> None:
    modern.release(modern.installing("works", PROMISE, folder="etc/promise"))
    modern.want()
    trouble = modern.partition() / "trouble"
    for text in ("one", "one", "two"):
        trouble.write_text(text)
        modern.run("instance")
    trouble.unlink()
    for _ in range(2):
        assert modern.run("instance").returncode == 0
    failed, held = promises(modern)
    assert failed == [("works", True, "one")]
    assert [each[:2] for each in held] == [("works", False)]
    told = modern.master.counted("promises")
    assert {report["partition"] for report in told} == {"slappart0"}
    assert all(each["at"] for report in told for each in report["results"])


def test_a_master_that_takes_no_promises_is_told_the_rest(world: World) -> None:
    world.release(world.installing("works", PROMISE, folder="etc/promise"))
    world.master.refused = {"promises"}
    for takes_reports in (False, True):
        world.master.takes_reports = takes_reports
        world.want(timestamp=f"{takes_reports:d}")
        (world.partition() / "trouble").write_text("one")
        assert world.run("instance").returncode == 2
        (world.partition() / "trouble").unlink()
        passed = world.run("instance")
        assert passed.returncode == 0
        assert "refuses" not in passed.stdout
    assert promises(world) == []
    assert states(world)[-1] == ("slappart0", "started")
