"""Which partitions are in use, and whose interfaces are whose."""

import os
from pathlib import Path

import pytest

from slapos.node.layout import Layout
from slapos.node.monitor.inhabited import Inhabited, Interfaces, find_inhabited

US = os.getuid()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "soft", tmp_path / "inst")
    (made.state / "instance").mkdir(parents=True)
    made.supervisor_groups.mkdir(parents=True)
    made.partition("slappart0").mkdir()
    (made.state / "instance" / "slappart0.json").touch()
    return made


def test_in_use_is_what_the_node_has_a_record_or_services_of(layout: Layout) -> None:
    layout.partition("slappart1").mkdir()
    layout.partition("slappart2").mkdir()
    for name in ("slappart1", "watchdog", "slappart9"):
        (layout.supervisor_groups / f"{name}.conf").touch()
    layout.partition("slappart9").symlink_to("/")
    found = find_inhabited(layout, US + 1)
    assert found == Inhabited(owners={"slappart0": US, "slappart1": US}, alone={})


def test_nothing_is_in_use_on_a_new_node(tmp_path: Path) -> None:
    assert find_inhabited(Layout(tmp_path, tmp_path), US) == Inhabited(owners={}, alone={})


@pytest.mark.skipif(US != 0, reason="only root can give folders to others")
def test_a_user_is_a_partitions_when_it_has_no_other_folder(layout: Layout) -> None:
    os.chown(layout.partition("slappart0"), 54321, -1)
    assert find_inhabited(layout, 0).alone == {54321: "slappart0"}
    assert find_inhabited(layout, 54321).alone == {}
    layout.partition("slappart1").mkdir()  # it is not in use, but may be
    os.chown(layout.partition("slappart1"), 54321, -1)
    assert find_inhabited(layout, 0).alone == {}


def test_interfaces_are_of_the_partition_whose_user_owns_them(tmp_path: Path) -> None:
    for name, owner in (("tap0", "54321\n"), ("tap1", "54322\n"), ("tap2", "-1\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "owner").write_text(owner)
    (tmp_path / "eth0").mkdir()
    interfaces = Interfaces(tmp_path)
    names = ["eth0", "tap0", "tap1", "tap2", "gone"]
    assert interfaces.of_partitions(names, {54321: "slappart0"}) == {"tap0": "slappart0"}
    assert interfaces.of_partitions(["eth0"], {54321: "slappart0"}) == {}
