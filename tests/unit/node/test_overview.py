"""How partitions do, from what is on disk, what runs and what the master wants."""

import json
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from slapos.node.layout import Layout, release_digest
from slapos.node.monitor.usage import Usage
from slapos.node.overview import (
    PartitionStatus,
    Seen,
    count_promises,
    partition_statuses,
    short_release,
)
from slapos.node.promise.result import PromiseResult, to_document
from slapos.node.record import PartitionRecord, ReleaseRecord, write_record
from slapos.node.supervise.supervisor import Process
from slapos.protocol.messages import NodeInformation, PartitionInformation
from slapos.protocol.states import InstanceState
from tests.fakes import NOON

URL = "http://example.com/kinto/software.cfg"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    for name in ("slappart0", "slappart1"):
        (tmp_path / "inst" / name).mkdir(parents=True)
    return Layout(tmp_path / "soft", tmp_path / "inst")


def process(name: str = "web-on-watch", state: str = "RUNNING", **more: object) -> Process:
    given = {"start": 100, "stop": 0, "pid": 7, "exit_status": 0, "description": "", **more}
    return Process(group="slappart0", name=name, state=state, **given)  # type: ignore[arg-type]


def wanting(state: InstanceState = InstanceState.STARTED) -> NodeInformation:
    return NodeInformation(
        reference="node",
        partitions=(
            PartitionInformation(
                node="node",
                reference="slappart0",
                state=state,
                software_url=URL,
                parameters={"instance_title": "blog"},
            ),
            PartitionInformation(node="node", reference="slappart1"),
        ),
    )


def keep_promise(layout: Layout, title: str, *, failed: bool, when: datetime = NOON) -> None:
    folder = layout.partition("slappart0") / ".slapgrid/promise/result"
    folder.mkdir(parents=True, exist_ok=True)
    result = PromiseResult(
        title=title, failed=failed, message="", date=when, execution_time=0, kind="Test Result"
    )
    document = to_document(result, name=f"{title}.py", path="")
    (folder / f"{title}.status.json").write_text(json.dumps(document))


def test_a_started_instance_is_shown_and_a_free_partition_is_not(layout: Layout) -> None:
    keep_promise(layout, "a", failed=False)
    processes = [process(), process("once", "EXITED", stop=150)]
    assert partition_statuses(layout, processes, wanting()) == [
        PartitionStatus(
            partition="slappart0",
            title="blog",
            release=URL,
            state="started",
            running=1,
            processes=2,
            promises_kept=1,
            promises_failed=0,
            since=150,
            error="",
        )
    ]


def test_what_it_used_is_of_the_last_sample(layout: Layout) -> None:
    usages = {"slappart0": Usage(seconds=60, cpu=15, memory=1000)}
    [status] = partition_statuses(layout, [process()], wanting(), usages)
    assert (status.cpu, status.memory) == (0.25, 1000)
    # The first sample has a memory, and nothing to compare with.
    usages = {"slappart0": Usage(seconds=0, memory=1000)}
    [status] = partition_statuses(layout, [process()], wanting(), usages)
    assert (status.cpu, status.memory) == (None, 1000)


def test_what_is_wrong_comes_first(layout: Layout) -> None:
    write_record(layout.partition_record("slappart1"), PartitionRecord().failed(0, "no part"))
    first, second = partition_statuses(layout, [process()], wanting())
    assert (first.partition, first.is_well, first.next_attempt) == ("slappart1", False, 10)
    assert (second.partition, second.is_well, second.next_attempt) == ("slappart0", True, 0)


def test_one_that_was_never_instantiated_waits(layout: Layout) -> None:
    [status] = partition_statuses(layout, [], wanting())
    assert status.state == "waiting"
    write_record(layout.partition_record("slappart0"), PartitionRecord(applied="1"))
    [status] = partition_statuses(layout, [], wanting())
    assert status.state == "started"


def test_without_supervisord_what_is_on_disk_is_shown(layout: Layout) -> None:
    [status] = partition_statuses(layout, None, wanting())
    assert (status.running, status.processes, status.state) == (None, None, "unknown")


def test_promises_are_not_read_again_until_they_change(layout: Layout) -> None:
    folder = layout.partition("slappart0")
    keep_promise(layout, "good", failed=False)
    seen: Seen = {}
    assert count_promises(folder, seen) == (1, 0)
    [(changed, _)] = seen.values()
    seen["slappart0"] = (changed, (7, 7))
    assert count_promises(folder, seen) == (7, 7)
    keep_promise(layout, "bad", failed=True)
    os.utime(folder / ".slapgrid/promise/result", ns=(0, changed + 1))
    assert count_promises(folder, seen) == (1, 1)


def test_the_state_tells_the_worst(layout: Layout) -> None:
    def state(*processes: Process) -> str:
        return partition_statuses(layout, processes, wanting())[0].state

    keep_promise(layout, "a", failed=True)
    assert state(process()) == "unhealthy"
    assert state(process(state="EXITED")) == "down"
    path = layout.partition_record("slappart0")
    write_record(path, PartitionRecord().came_too_early(0, "waits for the database"))
    assert state(process(state="EXITED")) == "waiting"
    write_record(path, PartitionRecord().failed(0, "no part"))
    [status] = partition_statuses(layout, [process()], wanting())
    assert (status.state, status.error) == ("failed", "no part")


def test_without_the_master_what_is_on_disk_is_shown(layout: Layout) -> None:
    write_record(layout.partition_record("slappart0"), PartitionRecord(applied="1"))
    write_record(layout.release_record(URL), ReleaseRecord(url=URL))
    (layout.partition("slappart0") / "software_release").symlink_to(layout.release(URL))
    watchdog = replace(process(), group="watchdog", name="watchdog")
    [status] = partition_statuses(layout, [process(), watchdog], None)
    assert (status.title, status.release, status.state) == (None, URL, "unknown")


@pytest.mark.parametrize(
    ("url", "short"),
    [
        (URL, "kinto"),
        ("/srv/releases/hello/software.cfg", "hello"),
        ("http://example.com/raw/other.cfg?id=1", "other"),
        ("software.cfg", "software"),
        (release_digest(URL), release_digest(URL)),
        ("", ""),
    ],
)
def test_a_release_is_told_by_its_folder(url: str, short: str) -> None:
    assert short_release(url) == short


def test_damaged_results_and_links_are_not_counted(layout: Layout, tmp_path: Path) -> None:
    folder = layout.partition("slappart0")
    assert count_promises(folder, {}) == (0, 0)
    keep_promise(layout, "good", failed=False)
    keep_promise(layout, "bad", failed=True)
    result = folder / ".slapgrid/promise/result"
    (result / "broken.status.json").write_text("{")
    (result / "linked.status.json").symlink_to(result / "bad.status.json")
    assert count_promises(folder, {}) == (1, 1)
    result.rename(tmp_path / "elsewhere")
    result.symlink_to(tmp_path / "elsewhere")
    assert count_promises(folder, {}) == (0, 0)
