"""What promises and crashes do to the launcher, and what may come of it: never silence."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slapos.node.promise.check import LAUNCHER_TITLE
from tests.integration.node.promise.conftest import Partition

SAY = 'self.logger.info("fine")'
DAY = 86_400.0


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_child_that_holds_the_output_keeps_nobody_waiting(partition: Partition) -> None:
    partition.plugin(
        "a.py",
        "pid = os.fork()\nif pid == 0:\n    time.sleep(600)\n    os._exit(0)\n"
        "open('pid', 'w').write(str(pid))\n" + SAY,
    )
    partition.executable("b", "sleep 600 & echo fine; exit 0")
    begun = time.monotonic()
    assert not any(result.failed for result in partition.check().values())
    assert time.monotonic() - begun < 20
    assert not is_alive(int((partition.directory / "pid").read_text()))


def test_a_promise_that_kills_its_launcher_is_named_and_keeps_only_itself(
    partition: Partition,
) -> None:
    for title in "acd":
        partition.plugin(f"{title}.py", SAY)
    partition.plugin("b.py", "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)")
    first = partition.check()
    assert first[LAUNCHER_TITLE].failed
    # From then on it comes last, and is named.
    again = partition.check()
    assert {title for title, result in again.items() if result.failed} == {LAUNCHER_TITLE}
    assert "the launcher was killed while it ran b" in again[LAUNCHER_TITLE].message
    results = json.loads(partition.state("state/promises.json").read_text())
    assert set(results) == set("acd")
    # Once it is mended, all is well.
    partition.plugin("b.py", SAY)
    assert not any(result.failed for result in partition.check().values())
    assert not any(result.failed for result in partition.check().values())


def test_promises_may_change_their_files_while_they_run(partition: Partition) -> None:
    partition.plugin("a.py", "open(self.getPromiseFile(), 'a').write('# more')\n" + SAY)
    partition.plugin("b.py", "os.unlink(self.getPromiseFile())\n" + SAY)
    partition.plugin("c.py", "os.unlink('etc/plugin/d.py')\n" + SAY)
    partition.plugin("d.py", SAY)
    found = partition.check(force=False)
    assert {title for title, result in found.items() if result.failed} == {"d"}
    assert "No such file" in found["d"].message
    # It is another file now, so it is due although its period is not over.
    before = partition.state("log/a.log").read_text().count("fine")
    partition.check(force=False)
    assert partition.state("log/a.log").read_text().count("fine") == before + 1


def test_promises_may_remove_the_folders_that_results_go_to(partition: Partition) -> None:
    partition.plugin("a.py", "import shutil; shutil.rmtree('.slapgrid')\n" + SAY)
    partition.plugin("b.py", SAY)
    assert {t: r.failed for t, r in partition.check().items()} == {"a": False, "b": False}
    partition.plugin("a.py", SAY)
    partition.check()
    assert partition.state("result/b.status.json").exists()


ODD_NAMES = [
    "with space",
    "quo'te\"s",
    "new\nline",
    "dollar$HOME",
    "-x",
    "..dots",
    "ünïcödé",
    "x" * 200,
    "a.status.json",
    "promises.json",
    "{}",
]


def test_titles_may_be_odd(partition: Partition) -> None:
    for name in ODD_NAMES:
        partition.plugin(f"{name}.py" if name != "..dots" else "dots...py", SAY)
        partition.executable(f"e {name}", "echo fine")
    found = partition.check()
    assert {result.message for result in found.values()} == {"fine"}
    assert len(found) == 2 * len(ODD_NAMES)
    # Kept, and found again.
    assert set(partition.check(force=False)) == set(found)
    assert all((partition.state("result") / f"{t}.status.json").exists() for t in found)


def test_a_title_that_is_no_text_is_told_all_the_same(partition: Partition) -> None:
    partition.executable("plain", "echo fine")
    odd = os.fsencode(partition.directory / "etc/promise") + b"/odd-\xff"
    os.rename(os.fsencode(partition.directory / "etc/promise/plain"), odd)
    for force in (True, False):
        [result] = partition.check(force=force).values()
        assert (result.title, result.message) == ("odd-\\udcff", "fine")


def test_three_hundred_promises(partition: Partition) -> None:
    for number in range(300):
        partition.plugin(f"p{number}.py", SAY)
    partition.plugin("p150.py", "time.sleep(0.3)\nself.logger.error('down')")
    found = partition.check()
    assert {title for title, result in found.items() if result.failed} == {"p150"}
    assert len(found) == 300


# What a crash leaves behind.


@pytest.mark.parametrize("content", [b"", b'{"good": {"sch', b"\0" * 4096])
def test_files_that_a_crash_tore_silence_no_promise(partition: Partition, content: bytes) -> None:
    partition.plugin("good.py", SAY)
    partition.plugin("bad.py", "self.logger.error('down')")
    partition.executable("executable", "exit 1")
    partition.check()
    files = [path for path in partition.state(".").rglob("*") if path.is_file()]
    assert len(files) >= 3 * 3 + 1
    for path in files:
        path.write_bytes(content)
        path.with_name(path.name + ".tmp").write_bytes(content)
    found = partition.check("anomaly", force=False)
    assert {title: result.failed for title, result in found.items()} == {
        "good": False,
        "bad": True,
        "executable": False,  # its last three runs are not known
    }
    assert json.loads(partition.state("result/bad.status.json").read_text())["result"]["failed"]


def test_a_launcher_killed_at_any_moment_costs_no_result_of_the_next(partition: Partition) -> None:
    for number in range(8):
        partition.plugin(f"p{number}.py", "time.sleep(0.02)\n" + SAY)
    for moment in range(6):
        partition.plugin("p4.py", f"time.sleep({moment} / 100)\nos.kill(os.getppid(), 9)")
        partition.check(force=True)
        partition.plugin("p4.py", SAY)
        found = partition.check(force=False)
        assert {result.failed for result in found.values()} == {False}
        assert len(found) == 8


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_clock_that_jumps_a_day_silences_no_promise(partition: Partition, jump: float) -> None:
    """The promise ran when the clock was a day ahead of now, or behind."""
    partition.plugin("bad.py", "self.logger.error('down')")
    partition.check()
    path = partition.state("state/promises.json")
    stored = json.loads(path.read_text())
    stored["bad"]["schedule"]["next_run_after"] += jump
    stored["bad"]["told"] += jump
    path.write_text(json.dumps(stored))
    result_file = partition.state("result/bad.status.json")
    result_file.unlink()
    begun = time.time()
    result = partition.check("anomaly", force=False)["bad"]
    assert result.failed
    assert result.date.timestamp() >= int(begun)
    assert result_file.exists()
    # And from then on it has its turn as ever.
    assert partition.check("anomaly", force=False)["bad"].date == result.date.replace(microsecond=0)


# A full disk.


@pytest.fixture
def full_partition(partition: Partition) -> Iterator[Partition]:
    """A partition on a disk of 256 KiB, with promises, which are then hindered by a large file."""
    folder = partition.directory / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "promises", folder], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this environment does not let us mount a tmpfs")
    yield Partition(folder)
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_full_disk_silences_no_promise(full_partition: Partition) -> None:
    partition = full_partition
    partition.plugin("good.py", SAY)
    partition.plugin("bad.py", "self.logger.error('down')")
    partition.executable("executable", "echo fine")
    fill = partition.directory / "fill"
    with pytest.raises(OSError, match="No space left"):
        fill.write_bytes(b"x" * 1_000_000)
    for _ in range(2):  # without any state, then with what could be stored
        found = partition.check()
        assert {title: result.failed for title, result in found.items()} == {
            "good": False,
            "bad": True,
            "executable": False,
        }
    fill.unlink()
    assert partition.check("anomaly", force=False)["bad"].failed
    partition.check()
    document = json.loads(partition.state("result/bad.status.json").read_text())
    assert document["result"]["message"] == "down"
    assert not list(partition.state(".").rglob("*.tmp"))
