"""The kernel here may give only one version of cgroups: folders stand in for the other."""

from pathlib import Path

import pytest

from slapos.node.isolate.cgroup import (
    CgroupFailed,
    Group,
    Hierarchy,
    find_hierarchies,
    group_of,
)
from slapos.node.isolate.confinement import Confinement, read_confinement, write_confinement
from slapos.node.isolate.limits import NO_LIMITS, PartitionLimits
from slapos.system.runner import ProcessLimits

ROOT = Path("/srv/slapgrid")
LIMITS = PartitionLimits(memory=64 * 1024**2, cpu=1.5, processes=20, open_files=100)


def unified(folder: Path, controllers: str = "cpuset cpu io memory pids", **files: str) -> str:
    """Have `folder` look like the top of a v2 hierarchy; return its line of mountinfo."""
    folder.mkdir(exist_ok=True)
    for name, text in {
        "cgroup.controllers": controllers,
        "cgroup.procs": "",
        "cgroup.subtree_control": "",
        **{name.replace("_", ".", 1): text for name, text in files.items()},
    }.items():
        (folder / name).write_text(text)
    return f"30 23 0:26 / {folder} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def separate(folder: Path, controllers: str) -> str:
    """Have `folder` look like the top of a v1 hierarchy; return its line of mountinfo."""
    folder.mkdir(exist_ok=True)
    (folder / "cgroup.procs").write_text("")
    return f"31 23 0:27 / {folder} rw shared:9 - cgroup cgroup rw,{controllers}\n"


def test_the_unified_hierarchy_is_found_with_what_it_controls(tmp_path: Path) -> None:
    mounts = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n" + unified(tmp_path)
    found, refused = find_hierarchies(mounts, "0::/\n", is_root=True)
    assert found == (Hierarchy(tmp_path, ("memory", "cpu", "pids"), is_unified=True),)
    assert refused == ""


def test_separate_hierarchies_are_found_and_a_controller_is_taken_once(tmp_path: Path) -> None:
    mounts = (
        separate(tmp_path / "cpu,cpuacct", "cpu,cpuacct")
        + separate(tmp_path / "memory", "memory")
        + separate(tmp_path / "again", "memory")
        + separate(tmp_path / "systemd", "name=systemd")
        + unified(tmp_path / "unified", "pids")
    )
    found, _ = find_hierarchies(mounts, "", is_root=True)
    assert found == (
        Hierarchy(tmp_path / "cpu,cpuacct", ("cpu",), is_unified=False),
        Hierarchy(tmp_path / "memory", ("memory",), is_unified=False),
        Hierarchy(tmp_path / "unified", ("pids",), is_unified=True),
    )


def test_an_ordinary_user_works_below_the_group_that_was_given(tmp_path: Path) -> None:
    mounts = unified(tmp_path)
    given = tmp_path / "user.slice" / "node.service"
    given.mkdir(parents=True)
    (given / "cgroup.procs").write_text("")
    for own in ("/user.slice/node.service", "/user.slice/node.service/slapos-node"):
        found, refused = find_hierarchies(mounts, f"0::{own}\n", is_root=False)
        assert [hierarchy.base for hierarchy in found] == [given]
    found, refused = find_hierarchies(mounts, "0::/user.slice/session.scope\n", is_root=False)
    assert found == ()
    assert "session.scope is not ours to write to" in refused
    assert "Delegate=yes" in refused


def test_in_a_container_whose_group_is_occupied_nothing_is_limited(tmp_path: Path) -> None:
    mounts = unified(tmp_path, cgroup_type="domain", cgroup_procs="1\n7\n")
    found, refused = find_hierarchies(mounts, "0::/\n", is_root=True)
    assert found == ()
    assert "as in a container" in refused


def test_a_machine_without_cgroups_says_so() -> None:
    assert find_hierarchies("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n", "", is_root=True) == (
        (),
        "this machine has no cgroups",
    )


def test_a_group_is_made_with_all_above_it_passing_the_controllers_on(tmp_path: Path) -> None:
    unified(tmp_path)
    group = group_of(Hierarchy(tmp_path, ("memory", "cpu"), True), ROOT, "slappart0", LIMITS)
    assert group.make()
    node = group.folder.parent
    assert node.parent == tmp_path / "slapos"
    for above in (tmp_path, node.parent, node):
        assert (above / "cgroup.subtree_control").read_text() == "+memory +cpu"
    # Where processes are, nothing may be passed on.
    assert not (group.folder / "cgroup.subtree_control").exists()
    assert (group.folder / "memory.max").read_text() == "67108864"
    assert (group.folder / "cpu.max").read_text() == "150000 100000"
    assert not group.make()


def test_a_group_whose_maker_was_killed_before_it_had_limits_gets_them(tmp_path: Path) -> None:
    unified(tmp_path)
    group = group_of(Hierarchy(tmp_path, ("memory", "pids"), True), ROOT, "slappart0", LIMITS)
    group.make()
    (group.folder / "pids.max").write_text("max\n")
    assert group.make()
    assert (group.folder / "pids.max").read_text() == "20"
    (group.folder / "memory.max").write_text("max\n")
    assert not group.make()  # the last one is written last: the kernel's own rounding is no matter


def test_what_is_enabled_already_is_not_written_again(tmp_path: Path) -> None:
    unified(tmp_path, cgroup_subtree_control="memory pids cpu")
    group_of(Hierarchy(tmp_path, ("memory", "cpu"), True), ROOT, "slappart0", LIMITS).make()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "memory pids cpu"


def test_a_given_group_is_cleared_before_it_passes_anything_on(tmp_path: Path) -> None:
    unified(tmp_path, cgroup_type="domain", cgroup_procs="41\n")
    group_of(Hierarchy(tmp_path, ("pids",), True), ROOT, "slappart0", LIMITS).make()
    assert (tmp_path / "slapos-node" / "cgroup.procs").read_text() == "41"


def test_the_values_of_each_version() -> None:
    def values(limits: PartitionLimits, *, is_unified: bool) -> dict[str, str]:
        hierarchy = Hierarchy(Path("/c"), ("memory", "cpu", "pids"), is_unified)
        return dict(group_of(hierarchy, ROOT, "slappart0", limits).values)

    assert values(LIMITS, is_unified=True) == {
        "memory.max": "67108864",
        "memory.swap.max?": "0",
        "cpu.max": "150000 100000",
        "pids.max": "20",
    }
    assert values(NO_LIMITS, is_unified=True) == {
        "memory.max": "max",
        "memory.swap.max?": "max",
        "cpu.max": "max 100000",
        "pids.max": "max",
    }
    assert values(LIMITS, is_unified=False) == {
        "memory.memsw.limit_in_bytes?": "67108864",
        "memory.limit_in_bytes": "67108864",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
        "pids.max": "20",
    }
    assert values(NO_LIMITS, is_unified=False)["memory.limit_in_bytes"] == "-1"
    assert values(NO_LIMITS, is_unified=False)["cpu.cfs_quota_us"] == "-1"


def test_nodes_on_one_machine_have_groups_of_their_own() -> None:
    hierarchy = Hierarchy(Path("/c"), ("pids",), is_unified=True)
    one = group_of(hierarchy, Path("/srv/one"), "slappart0", LIMITS)
    other = group_of(hierarchy, Path("/srv/other"), "slappart0", LIMITS)
    assert one.folder != other.folder


def test_a_group_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "slapos").write_text("in the way")
    group = group_of(Hierarchy(tmp_path, ("pids",), False), ROOT, "slappart0", LIMITS)
    with pytest.raises(CgroupFailed, match="slappart0 cannot be made"):
        group.make()


def test_a_confinement_is_read_as_it_was_written(tmp_path: Path) -> None:
    group = group_of(Hierarchy(tmp_path, ("memory",), False), ROOT, "slappart0", LIMITS)
    confinement = Confinement(limits=LIMITS, groups=(group,), processes=7)
    path = tmp_path / "limits" / "slappart0.json"
    write_confinement(path, confinement)
    assert read_confinement(path) == confinement
    assert path.stat().st_mode & 0o777 == 0o600
    assert confinement.process_limits() == ProcessLimits(
        cgroup_procs=(group.folder / "cgroup.procs",), open_files=100, processes=7
    )


@pytest.mark.parametrize("text", ["", "{", "[]", '{"limits": {"memroy": 1}}', '{"limits": 1}'])
def test_a_damaged_confinement_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "slappart0.json"
    path.write_text(text)
    assert read_confinement(path) is None
    assert read_confinement(tmp_path / "missing.json") is None


def test_a_group_is_removed_once_it_is_empty(tmp_path: Path) -> None:
    group = Group(tmp_path / "slappart0", ("pids",), is_unified=False, values=())
    assert group.remove()
    group.folder.mkdir()
    (group.folder / "held").touch()
    assert not group.remove()
    (group.folder / "held").unlink()
    assert group.remove()
