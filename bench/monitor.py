"""What a sample costs with 1,000 processes, beside psutil, and as partitions become many."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.measure import Figure, in_turn, show
from slapos.node.assembly import make_doors
from slapos.node.layout import Layout
from slapos.node.monitor.inhabited import find_inhabited
from slapos.node.monitor.monitor import Monitor
from slapos.node.monitor.processes import ProcessReader
from slapos.node.settings import NodeSettings

#: Users of partitions that no program of this machine has.
FIRST_USER = 54000
SLEEP = shutil.which("sleep") or "/bin/sleep"


@contextmanager
def running(processes: int, partitions: int, root: Path) -> Iterator[dict[str, int]]:
    """Make partitions, as root each with a user of its own, and processes in them."""
    is_root = os.geteuid() == 0
    records = root / "inst" / "var" / "slapgrid" / "instance"
    records.mkdir(parents=True)
    (root / "inst" / "var" / "slapgrid").chmod(0o700)
    owners = {}
    for number in range(partitions):
        name = f"slappart{number}"
        (root / "inst" / name).mkdir()
        owners[name] = FIRST_USER + number if is_root else os.geteuid()
        if is_root:
            os.chown(root / "inst" / name, owners[name], -1)
        (records / f"{name}.json").write_text("{}")
    started = []
    for number in range(processes):
        name = f"slappart{number % partitions}"
        marks = {
            "SUPERVISOR_SERVER_URL": f"unix://{root}/inst/sv.sock",
            "SUPERVISOR_GROUP_NAME": name,
        }
        user = owners[name] if is_root else None
        started.append(subprocess.Popen([SLEEP, "3600"], user=user, env=marks))
    try:
        yield owners
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def by_psutil(owners: Mapping[str, int]) -> int:
    """Read with psutil what ProcessReader reads; return how many processes that were."""
    users, found = set(owners.values()), 0
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                if process.uids().effective in users:
                    found += 1
                    process.ppid()
                    process.create_time()
                    process.cpu_times()
                    process.num_threads()
                    process.memory_info()
                    process.io_counters()
        except psutil.Error:
            continue
    return found


def main() -> None:
    figures = []
    costs: dict[int, float] = {}
    for processes, partitions in ((10, 10), (1000, 100), (1000, 1000)):
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as name,
            running(processes, partitions, Path(name)) as owners,
        ):
            root = Path(name)
            if partitions == 100:
                reader = ProcessReader(root / "inst" / "sv.sock")
                inhabited = find_inhabited(Layout(root / "soft", root / "inst"), os.geteuid())
                if len(reader.read(inhabited)) != processes:
                    raise RuntimeError("not all processes are found, so the time means nothing")
                figures.append(
                    in_turn(
                        f"reading {processes} processes of {partitions} partitions",
                        lambda reader=reader, found=inhabited: reader.read(found),  # type: ignore[misc]
                        "the same by psutil",
                        lambda owners=owners: by_psutil(owners),  # type: ignore[misc]
                    )
                )
            settings = NodeSettings(
                computer_id="node",
                master_url="http://127.0.0.1:1/",
                software_root=root / "soft",
                instance_root=root / "inst",
            )
            monitor = Monitor(make_doors(settings))
            before = psutil.Process().memory_info().rss
            seconds = cpu_of(monitor.sample)
            costs[partitions] = seconds
            folder = settings.layout.measurements
            figures.append(
                Figure(
                    name=f"a sample, stored: {processes} processes, {partitions} partitions",
                    median=seconds,
                    unit="s of a processor",
                    runs=15,
                    notes={
                        "percent_of_a_core_each_minute": round(seconds / 60 * 100, 3),
                        "bytes_collector": (folder / "collector.db").stat().st_size,
                        "bytes_history": (folder / "history.db").stat().st_size,
                        "memory_grown": psutil.Process().memory_info().rss - before,
                    },
                )
            )
    show(figures)


def cpu_of(work: Callable[[], object], runs: int = 15) -> float:
    """Return the median processor time of doing something, after twice uncounted."""
    times = []
    for _ in range(runs + 2):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return sorted(times[2:])[runs // 2]


if __name__ == "__main__":
    main()
