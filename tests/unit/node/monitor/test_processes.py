"""Which process is of which partition, from a /proc that is made of files."""

import os
from pathlib import Path

import pytest

from slapos.node.monitor.inhabited import Inhabited
from slapos.node.monitor.processes import ProcessReader, partition_of_group

SOCKET = Path("/inst/sv.sock")
US = os.getuid()
KERNEL_THREAD = 0x00200000


class Proc:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        pid: int,
        *,
        parent: int = 1,
        name: str = "sh",
        state: str = "S",
        flags: int = 0,
        group: str = "",
        socket: Path = SOCKET,
    ) -> None:
        folder = self.folder / str(pid)
        folder.mkdir()
        fields = [state, parent, pid, pid, 0, -1, flags, 1, 2, 3, 4, 150, 50, 25, 25, 20, 0, 7, 0]
        fields += [3000, 99999, 12, 0]
        (folder / "stat").write_text(f"{pid} ({name}) {' '.join(map(str, fields))}\n")
        (folder / "status").write_text(f"Name:\tsh\nUid:\t{US}\t{US}\t{US}\t{US}\n")
        (folder / "io").write_text(
            "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\n"
            "cancelled_write_bytes: 0\n"
        )
        marks = f"SUPERVISOR_SERVER_URL=unix://{socket}\0SUPERVISOR_GROUP_NAME={group}\0"
        (folder / "environ").write_text(f"HOME=/\0{marks if group else ''}")

    def reader(self) -> ProcessReader:
        return ProcessReader(SOCKET, proc=self.folder)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    (tmp_path / "uptime").write_text("1 1\n")
    return Proc(tmp_path)


#: Our user is slappart0's alone.
ALONE = Inhabited(owners={"slappart0": US}, alone={US: "slappart0"})


def partitions(reader: ProcessReader, *references: str) -> dict[int, str]:
    samples = reader.read(Inhabited(owners=dict.fromkeys(references, US), alone={}))
    return {sample.pid: sample.partition for sample in samples}


def test_what_is_read_of_a_process(proc: Proc) -> None:
    proc.add(7, parent=3, name="odd) S 9 (name", group="slappart0")
    [one] = proc.reader().read(ALONE)
    tick, page = 1 / os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    assert (one.pid, one.parent, one.started, one.user) == (7, 3, 3000 * tick, US)
    assert (one.cpu, one.ended_children, one.threads) == (200 * tick, 50 * tick, 7)
    assert (one.memory, one.read, one.written, one.calls) == (12 * page, 5, 6, 7)


def test_with_a_user_of_its_own_all_of_them_are_the_partitions(proc: Proc) -> None:
    proc.add(7)
    [one] = proc.reader().read(ALONE)
    assert one.partition == "slappart0"


def test_with_a_user_for_several_the_supervisors_group_tells(proc: Proc) -> None:
    proc.add(7, group="slappart0")
    proc.add(8, group="slappart1-prerm")
    proc.add(9, group="watchdog")
    proc.add(10)
    proc.add(11, group="slappart0", socket=Path("/other/sv.sock"))
    found = partitions(proc.reader(), "slappart0", "slappart1")
    assert found == {7: "slappart0", 8: "slappart1"}


def test_one_that_was_seen_before_it_executed_its_program_is_seen_again(proc: Proc) -> None:
    """Between fork and exec it has the environment of supervisord."""
    proc.add(7)
    reader = proc.reader()
    assert partitions(reader, "slappart0") == {}
    marks = f"SUPERVISOR_SERVER_URL=unix://{SOCKET}\0SUPERVISOR_GROUP_NAME=slappart0\0"
    (proc.folder / "7" / "environ").write_text(marks)
    assert partitions(reader, "slappart0") == {7: "slappart0"}


def test_not_all_of_a_user_of_others_is_of_the_only_partition_in_use(proc: Proc) -> None:
    proc.add(7, group="slappart0")
    proc.add(8)
    assert partitions(proc.reader(), "slappart0") == {7: "slappart0"}


def test_what_lost_its_environment_is_of_its_parents_partition(proc: Proc) -> None:
    proc.add(7, group="slappart0")
    proc.add(8, parent=7)
    proc.add(9, parent=8)
    proc.add(12, parent=13)  # two that name each other, as after a number was given anew
    proc.add(13, parent=12)
    assert partitions(proc.reader(), "slappart0") == dict.fromkeys((7, 8, 9), "slappart0")


def test_kernel_threads_are_nobodys_and_the_ended_have_no_threads(proc: Proc) -> None:
    proc.add(7, flags=KERNEL_THREAD)
    proc.add(8, state="Z")
    [one] = proc.reader().read(ALONE)
    assert (one.pid, one.threads) == (8, 0)


def test_one_that_ends_meanwhile_is_not_there(proc: Proc) -> None:
    proc.add(7)
    (proc.folder / "7" / "stat").unlink()
    assert proc.reader().read(ALONE) == []


@pytest.mark.parametrize(
    ("group", "partition"),
    [("a-1", "a-1"), ("a-1-prerm", "a-1"), ("a-socat", "a"), ("b", ""), ("", "")],
)
def test_groups_of_a_partition(group: str, partition: str) -> None:
    assert partition_of_group(group, {"a": 1, "a-1": 1}) == partition
