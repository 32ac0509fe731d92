"""What partitions used between two looks at their processes."""

from dataclasses import replace

import pytest

from slapos.node.monitor.processes import ProcessSample
from slapos.node.monitor.usage import Look, process_loads, used

SERVER = ProcessSample(
    pid=10,
    parent=1,
    started=50.0,
    user=1000,
    partition="slappart0",
    cpu=5.0,
    ended_children=100.0,
    threads=3,
    memory=4096,
    read=1000,
    written=2000,
)
CHILD = replace(SERVER, pid=11, parent=10, started=90.0, cpu=2.0, ended_children=0.0, threads=1)
LATER = replace(SERVER, cpu=8.0, read=1500, written=2600)


def look(*processes: ProcessSample, uptime: float = 100.0, boot: str = "a") -> Look:
    return Look(boot=boot, uptime=uptime, processes=processes)


def cpu(before: Look | None, now: Look) -> float:
    return used(before, now, ["slappart0"])["slappart0"].cpu


def test_what_ran_before_counts_with_what_it_used_since() -> None:
    usages = used(look(SERVER), look(LATER, uptime=160), ["slappart0", "slappart1"])
    one = usages["slappart0"]
    assert (one.seconds, one.cpu, one.read, one.written) == (60, 3, 500, 600)
    assert (one.memory, one.processes, one.threads) == (4096, 1, 3)
    idle = usages["slappart1"]
    assert (idle.seconds, idle.cpu, idle.processes) == (60, 0, 0)


def test_what_started_since_counts_with_all_it_used() -> None:
    new = replace(CHILD, started=110.0)
    assert cpu(look(SERVER), look(SERVER, new, uptime=160)) == 2
    # It was there, and was of no partition then.
    assert cpu(look(SERVER), look(SERVER, replace(new, started=70.0), uptime=160)) == 0


def test_the_first_look_counts_nothing() -> None:
    assert cpu(None, look(SERVER)) == 0
    assert used(None, look(SERVER), ["slappart0"])["slappart0"].memory == 4096


def test_after_the_machine_was_started_all_is_new() -> None:
    before = look(replace(SERVER, cpu=900.0), uptime=5000)
    now = look(SERVER, uptime=60, boot="b")
    assert cpu(now.since(before), now) == 105


def test_another_process_with_the_same_number_is_another_process() -> None:
    other = replace(SERVER, started=120.0, cpu=1.0, ended_children=0.0)
    assert cpu(look(SERVER), look(other, uptime=160)) == 1


@pytest.mark.parametrize("seen_before", [False, True])
def test_a_child_that_ended_is_counted_once(seen_before: bool) -> None:
    """It used 2 s until the first look if it ran then, and 3 s in all."""
    before = look(SERVER, CHILD) if seen_before else look(SERVER)
    parent = replace(SERVER, ended_children=103.0)
    assert cpu(before, look(parent, uptime=160)) == (1 if seen_before else 3)


def test_a_grandchild_whose_parent_ended_too_is_counted_once() -> None:
    grandchild = replace(CHILD, pid=12, parent=11, cpu=1.0)
    # 3 s of the child and 1.5 s of the grandchild, of which 2 s and 1 s were counted.
    parent = replace(SERVER, ended_children=104.5)
    assert cpu(look(SERVER, CHILD, grandchild), look(parent, uptime=160)) == 1.5


def test_a_child_nobody_waited_for_takes_nothing_away() -> None:
    assert cpu(look(SERVER, CHILD), look(LATER, uptime=160)) == 3


def test_one_that_has_ended_and_waits_for_its_parent_counts_until_then() -> None:
    ended = replace(CHILD, threads=0, memory=0, cpu=3.0)
    between = look(SERVER, ended, uptime=160)
    assert cpu(look(SERVER, CHILD), between) == 1
    assert used(look(SERVER), between, ["slappart0"])["slappart0"].processes == 1
    assert cpu(between, look(replace(SERVER, ended_children=103.0), uptime=220)) == 0


def test_traffic_is_counted_where_there_is_an_interface() -> None:
    before = replace(look(), networks={"slappart0": (100, 10)})
    now = replace(look(uptime=160), networks={"slappart0": (150, 4), "slappart1": (7, 7)})
    usages = used(before, now, ["slappart0", "slappart1", "slappart2"])
    # The second counter began anew; the second interface was not looked at before.
    assert (usages["slappart0"].received, usages["slappart0"].sent) == (50, 4)
    assert (usages["slappart1"].received, usages["slappart1"].sent) == (0, 0)
    assert usages["slappart2"].received is None


def test_the_load_of_a_process_and_of_the_machine() -> None:
    new = replace(CHILD, started=110.0)
    before = replace(look(SERVER), busy=100.0, idle=100.0)
    now = replace(look(LATER, new, uptime=110), busy=103.0, idle=109.0)
    assert process_loads(before, now) == {SERVER.key: 0.3, new.key: 0.2}
    assert process_loads(None, now) == {SERVER.key: 0, new.key: 0}
    assert now.busy_share(before) == 0.25
