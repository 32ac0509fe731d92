"""Limits of partitions, with the cgroups that this machine has."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from slapos.node.isolate.cgroup import Hierarchy, group_of
from slapos.node.isolate.confinement import Confinement, confinement_file, read_confinement
from slapos.node.isolate.limits import NO_LIMITS
from slapos.protocol.states import InstanceState
from slapos.system.runner import ProcessLimits
from tests.integration.node.isolate.groups import HIERARCHIES
from tests.integration.node.world import IS_ROOT, URL, World, is_running, is_written, until

CONTROLLERS = {name for hierarchy in HIERARCHIES for name in hierarchy.controllers}

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not IS_ROOT, reason="only root may limit here"),
    pytest.mark.skipif(
        not {"memory", "cpu", "pids"} <= CONTROLLERS, reason="this machine lacks cgroups"
    ),
]

STAYS = "#!/bin/sh\necho $$ > service.pid\nexec sleep 600\n"
#: Counts for as long as it can start processes.
COUNTS = "#!/bin/sh\nn=0\nwhile sleep 0.05; do n=$((n+1)); echo $n > count; done\nsleep 600\n"


def order(world: World, reference: str = "slappart0", timestamp: str = "1", **limits: str) -> None:
    """Have the master want an instance with these limits in its order."""
    world.want(reference, timestamp=timestamp)
    wanted = {f"partition_{name}": value for name, value in limits.items()}
    world.master.partitions[reference] = replace(world.master.partitions[reference], filter=wanted)


def service(world: World, body: str, name: str = "service") -> None:
    world.release(world.installing(name, body))


def confinement(world: World, reference: str = "slappart0") -> Confinement:
    known = read_confinement(confinement_file(world.layout, reference))
    assert known is not None
    return known


def value(world: World, name: str, reference: str = "slappart0") -> str:
    """Return what the kernel says in a file of a partition's cgroup."""
    for group in confinement(world, reference).groups:
        if (group.folder / name).exists():
            return (group.folder / name).read_text().strip()
    raise AssertionError(f"no {name}")


def pid_of(world: World, reference: str = "slappart0") -> int:
    path = world.partition(reference) / "service.pid"
    until(lambda: is_written(path), f"{path} is written")
    return int(path.read_text())


def groups_of(pid: int) -> set[str]:
    """Return the cgroups that a process is in and the tests are not."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line.split(":", 2)[2] for line in lines if "/slapos/" in line}


def may_limit_others() -> bool:
    """Whether root may set the resource limits of others' processes: not in every container."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> 24 & 1)


def test_services_and_buildouts_begin_within_their_limits(limited: World) -> None:
    limited.release(
        "cat /proc/self/cgroup > of-buildout; ulimit -n > files\n"
        + limited.installing("service", STAYS)
    )
    order(limited, memory="64M", cpu="1.5", processes="50", open_files="123")
    said = limited.run("instance")
    assert said.returncode == 0, said.stdout
    pid = pid_of(limited)
    (folder,) = groups_of(pid)
    assert folder.endswith("/slappart0")
    assert folder in (limited.partition() / "of-buildout").read_text()
    assert (limited.partition() / "files").read_text() == "123\n"
    line = next(
        line
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines()
        if line.startswith("Max open files")
    )
    assert line.split()[3:5] == ["123", "123"]
    assert value(limited, "pids.max") == "50"


def test_a_partition_out_of_memory_is_alone_with_that(limited: World) -> None:
    service(
        limited,
        "#!/bin/sh\nif [ $(basename $PWD) = slappart0 ]; then\n"
        "head -c 300000000 /dev/zero | tail > /dev/null\necho $? > status\nfi\n"
        "echo $$ > service.pid\nexec sleep 600\n",
    )
    order(limited, memory="32M")
    order(limited, "slappart1", memory="32M")
    assert limited.run("instance").returncode == 0
    status = limited.partition() / "status"
    until(lambda: is_written(status), "the greedy program ended")
    assert int(status.read_text()) == 128 + 9
    assert is_running(pid_of(limited, "slappart1"))
    assert "oom_kill 0" not in value(limited, "memory.oom_control").splitlines()
    assert "oom_kill 0" in value(limited, "memory.oom_control", "slappart1").splitlines()


def test_a_partition_that_starts_too_many_processes_stops_at_its_limit(limited: World) -> None:
    bomb = (
        "#!/bin/sh\n(n=0; while [ $n -lt 60 ]; do sleep 600 & n=$((n+1)); echo $n > bomb; done)\n"
        "echo over > end\nexec sleep 600\n"
    )
    limited.release(limited.installing("bomb", bomb), url=URL)
    limited.release(limited.installing("counter", COUNTS), url=f"{URL}?2")
    order(limited, processes="12")
    limited.want("slappart1", url=f"{URL}?2")
    assert limited.run("instance").returncode == 0
    until(lambda: is_written(limited.partition() / "end"), "the bomb is over")
    assert int((limited.partition() / "bomb").read_text()) < 12
    assert int(value(limited, "pids.current")) <= 12
    # The neighbour, of the same user even, starts processes as before.
    count = limited.partition("slappart1") / "count"
    until(lambda: is_written(count), "the neighbour counts")
    before = int(count.read_text() or 0)
    until(lambda: int(count.read_text() or 0) > before, "the neighbour goes on counting")


def test_a_busy_partition_gets_no_more_than_its_share(limited: World) -> None:
    service(limited, "#!/bin/sh\nwhile :; do :; done\n")
    order(limited, cpu="0.2")
    assert limited.run("instance").returncode == 0

    def throttled() -> int:
        lines = dict(line.split() for line in value(limited, "cpu.stat").splitlines())
        return int(lines["nr_throttled"])

    until(lambda: throttled() > 0, "it is held back")


def test_changed_limits_bind_what_runs_without_a_restart(limited: World) -> None:
    service(limited, STAYS)
    order(limited, processes="50")
    limited.run("instance")
    pid = pid_of(limited)
    order(limited, timestamp="2", processes="60", open_files="99")
    assert limited.run("instance").returncode == 0
    assert value(limited, "pids.max") == "60"
    if may_limit_others():
        assert " 99 " in Path(f"/proc/{pid}/limits").read_text()
    assert pid_of(limited) == pid
    assert is_running(pid)
    order(limited, timestamp="3")
    assert limited.run("instance").returncode == 0
    assert value(limited, "pids.max") == "max"
    assert is_running(pid)


def test_limits_of_the_node_reach_what_ran_before_there_were_any(limited: World) -> None:
    service(limited, STAYS)
    limited.want()
    limited.run("instance")
    pid = pid_of(limited)
    assert not groups_of(pid)
    assert not confinement_file(limited.layout, "slappart0").exists()
    limited.configure(partition_processes="40")
    assert limited.run("instance").returncode == 0
    assert groups_of(pid)
    assert value(limited, "pids.max") == "40"
    assert is_running(pid)


def test_groups_that_a_reboot_removed_are_made_when_a_service_starts(limited: World) -> None:
    service(limited, STAYS)
    order(limited, processes="50")
    limited.run("instance")
    pid = pid_of(limited)
    limited.run("stop", "slappart0:*")
    until(lambda: not is_running(pid), "the service ends")
    for group in confinement(limited).groups:
        until(group.remove, "the group is empty")
    (limited.partition() / "service.pid").unlink()
    limited.run("start", "slappart0:*")
    assert groups_of(pid_of(limited))
    assert value(limited, "pids.max") == "50"


def test_nonsense_in_a_limit_fails_its_partition_and_no_other(limited: World) -> None:
    service(limited, STAYS)
    order(limited, memory="plenty")
    limited.want("slappart1")
    said = limited.run("instance")
    assert said.returncode == 1
    assert "partition_memory = 'plenty' in its order: it must be a size such as 512M" in said.stdout
    assert is_running(pid_of(limited, "slappart1"))
    assert not (limited.partition() / "service.pid").exists()
    assert any("plenty" in error for error in limited.master.errors())


def test_limits_of_a_release_bind_its_instances(limited: World) -> None:
    folder = limited.release(limited.installing("service", STAYS))
    (folder / "limits.json").write_text(json.dumps({"processes": 30}))
    limited.want()
    assert limited.run("instance").returncode == 0
    pid_of(limited)
    assert value(limited, "pids.max") == "30"
    limited.configure(partition_processes_maximum="20")
    said = limited.run("instance")
    assert said.returncode == 1
    assert "processes = 30 in" in said.stdout
    assert "have partition_processes_maximum raised" in said.stdout


def test_nothing_is_left_of_the_group_of_a_partition_that_is_free(limited: World) -> None:
    service(limited, STAYS)
    order(limited, processes="50")
    limited.run("instance")
    groups = confinement(limited).groups
    limited.want(timestamp="2", state=InstanceState.DESTROYED)
    limited.run("instance")
    limited.run("report")
    limited.want(url=None, state=InstanceState.DESTROYED)
    limited.run("instance")
    assert not any(group.folder.exists() for group in groups)
    assert not confinement_file(limited.layout, "slappart0").exists()


def test_the_unified_hierarchy_passes_controllers_on_and_takes_processes(tmp_path: Path) -> None:
    """With a controller that this kernel has in v2, whichever: the tree is made the same way."""
    mount = Path("/sys/fs/cgroup/unified")
    if not (mount / "cgroup.controllers").exists():
        pytest.skip("this machine has not both versions of cgroups")
    spare = (mount / "cgroup.controllers").read_text().split()
    if not spare:
        pytest.skip("this machine has no controller to spare")
    group = group_of(Hierarchy(mount, (spare[0],), is_unified=True), tmp_path, "part", NO_LIMITS)
    node = group.folder.parent
    try:
        assert group.make()
        for above in (mount, node.parent, node):
            assert spare[0] in (above / "cgroup.subtree_control").read_text().split()
        assert spare[0] in (group.folder / "cgroup.controllers").read_text().split()
        with subprocess.Popen(["sleep", "600"]) as process:
            ProcessLimits(cgroup_procs=(group.procs,)).bind(process.pid)
            assert groups_of(process.pid) == {"/" + str(group.folder.relative_to(mount))}
            assert not group.remove()
            process.kill()
    finally:
        until(group.remove, "the group is empty")
        node.rmdir()
        node.parent.rmdir()
        (mount / "cgroup.subtree_control").write_text(f"-{spare[0]}")
