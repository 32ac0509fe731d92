"""An instance that the master does not know any more, as after a restore from a backup.

It goes on until its place is given to another one, which never meets what it has left.
"""

import json
import time
from dataclasses import replace

import pytest

from slapos.node.report.eviction import kept_data
from slapos.protocol.messages import PartitionInformation
from tests.integration.node.world import IS_ROOT, World, is_running, is_written, until

SERVICE = "#!/bin/sh\necho $$ > $HOME/pid\nexec sleep 600\n"
OTHER = "http://example.com/other/software.cfg"


@pytest.fixture
def pid(world: World) -> int:
    """Have an instance with data and a service, and the master forget it; return the service's."""
    world.master.takes_reports = True
    world.run("format", "--now")
    world.release(f"mkdir -p srv; echo old > srv/data\n{world.installing('web', SERVICE)}")
    world.want()
    answer = world.run("instance")
    assert answer.returncode == 0, answer.stdout
    until(lambda: is_written(world.partition() / "pid"))
    world.master.partitions["slappart0"] = PartitionInformation(node="node", reference="slappart0")
    answer = world.run("instance")
    assert answer.returncode == 0, answer.stdout
    assert "guid-slappart0 (title of slappart0) is in it" in answer.stdout
    return int((world.partition() / "pid").read_text())


def want_another(world: World, script: str = "ls -A > found") -> None:
    world.release(script, OTHER)
    world.want(url=OTHER, timestamp="2", instance_title="another")
    wanted = world.master.partitions["slappart0"]
    world.master.partitions["slappart0"] = replace(wanted, instance_guid="SOFTINST-2")


def found(world: World) -> list[str]:
    """Return what the buildout of the other one found in the partition."""
    return sorted((world.partition() / "found").read_text().split())


def occupants(world: World) -> list[tuple[str, str]]:
    return [(each["instance"], each["title"]) for each in world.master.counted("occupant")]


def test_what_the_master_does_not_know_goes_on_and_is_told(world: World, pid: int) -> None:
    assert is_running(pid)
    assert occupants(world) == [("guid-slappart0", "title of slappart0")]
    for command in ("instance", "report"):
        assert world.run(command).returncode == 0
    assert is_running(pid)
    assert (world.partition() / "srv" / "data").exists()
    assert len(occupants(world)) == 1  # once is enough for a day
    shown = json.loads(world.run("status", "--json").stdout)["partitions"]
    assert [(each["partition"], each["state"]) for each in shown] == [
        ("slappart0", "unknown to the master")
    ]
    assert "guid-slappart0" in shown[0]["error"]
    examined = world.run("doctor").stdout
    assert "guid-slappart0 (title of slappart0) is in it" in examined


def test_another_instance_meets_nothing_of_it(world: World, pid: int) -> None:
    want_another(world)
    answer = world.run("instance")
    assert answer.returncode == 0, answer.stdout
    assert "is ended and removed" in answer.stdout
    assert not is_running(pid)
    # The first buildout of the other one began in an empty folder.
    assert set(found(world)) <= {
        ".slapgrid",
        ".slapos-partition-information",
        ".slapos-resource",
        "buildout.cfg",
        "found",
        "software_release",
    }
    assert occupants(world)[-1] == ("", "")
    assert "SOFTINST-2" in world.layout.partition_record("slappart0").read_text()
    assert "started" in world.run("status").stdout


def test_the_same_instance_that_is_back_goes_on_with_its_data(world: World, pid: int) -> None:
    world.want(timestamp="3")
    answer = world.run("instance")
    assert answer.returncode == 0, answer.stdout
    assert (world.partition() / "srv" / "data").read_text() == "old\n"
    assert is_running(pid)
    assert occupants(world)[-1] == ("", "")


def test_what_has_to_be_kept_for_some_days_is_put_aside(world: World, pid: int) -> None:
    (world.partition() / ".slapos-retention-lock-delay").write_text("7.0")
    want_another(world)
    answer = world.run("instance")
    assert answer.returncode == 0, answer.stdout
    [kept] = kept_data(world.layout)
    assert (kept.folder / "srv" / "data").read_text() == "old\n"
    assert (kept.partition, kept.instance) == ("slappart0", "guid-slappart0")
    assert not (world.partition() / "srv").exists()
    assert not is_running(pid)
    if IS_ROOT:
        assert kept.folder.parent.stat().st_mode & 0o077 == 0
        assert kept.folder.parent.stat().st_uid == 0
    assert str(kept.folder) in world.run("doctor").stdout
    world.run("report")
    assert kept.folder.exists()
    kept.folder.rename(kept.folder.with_name("slappart0_guid-slappart0_1000"))
    world.run("report")
    assert list(kept_data(world.layout)) == []


def test_what_was_cut_short_while_it_was_put_aside_is_put_there_whole(
    world: World, pid: int
) -> None:
    """The delay has been moved by then, and only the day says that the rest is kept, too."""
    until = time.time() + 86400
    (world.partition() / ".slapos-retention-lock-date").write_text(str(until))
    (world.partition() / ".slapos-retention-lock-delay").unlink()
    begun = world.layout.kept / f"slappart0_guid-slappart0_{until:.0f}"
    begun.mkdir(mode=0o700, parents=True)
    (begun / "moved").write_text("before")
    want_another(world)
    answer = world.run("instance")
    assert answer.returncode == 0, answer.stdout
    [kept] = kept_data(world.layout)
    assert {path.name for path in kept.folder.iterdir()} >= {"moved", "srv"}
    assert kept.folder == begun


def test_one_whose_removal_fails_is_tried_again_before_another_begins(
    world: World, pid: int
) -> None:
    destroy = world.partition() / "sbin" / "destroy"
    world.script(destroy, "#!/bin/sh\necho no way; exit 4\n")
    want_another(world)
    answer = world.run("instance")
    assert answer.returncode == 1
    assert "no way" in answer.stdout
    assert not (world.partition() / "found").exists()
    destroy.unlink()
    answer = world.run("instance", "--now")
    assert answer.returncode == 0, answer.stdout
    assert "srv" not in found(world)


def test_a_node_that_is_killed_while_it_removes_removes_the_rest(world: World, pid: int) -> None:
    destroy = world.partition() / "sbin" / "destroy"
    world.script(destroy, "#!/bin/sh\ntouch $HOME/begun\nsleep 600\n")
    want_another(world)
    with world.agent() as agent:
        until((world.partition() / "begun").exists, "the destruction begins")
        agent.kill()
    world.script(destroy, "#!/bin/sh\nexit 0\n")
    until(lambda: world.run("instance", "--now").returncode == 0, "it is done")
    assert "srv" not in found(world)
    assert not is_running(pid)


def test_what_is_to_be_destroyed_is_so_whatever_it_is(world: World, pid: int) -> None:
    """So what moved from a lost node: what it has left has another reference at the master."""
    want_another(world)
    wanted = world.master.partitions["slappart0"]
    destroyed = type(wanted.state)("destroyed")
    world.master.partitions["slappart0"] = replace(wanted, state=destroyed)
    for command in ("instance", "report"):
        answer = world.run(command)
        assert answer.returncode == 0, answer.stdout
    assert [path.name for path in world.partition().iterdir()] == [".slapos-resource"]
    assert not is_running(pid)
    assert world.master.calls()[-1] == "destroyedComputerPartition slappart0"
    assert occupants(world)[-1] == ("", "")


def test_the_agent_does_so_too(world: World, pid: int) -> None:
    with world.agent():
        want_another(world)
        until(lambda: is_written(world.partition() / "found"), "the other one is there")
    assert not is_running(pid)
    assert not (world.partition() / "srv").exists()
