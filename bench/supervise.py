"""1,000 supervised processes: start, memory, idling; adding one more; hearing that one ended.

Beside bare fork+exec of the same 1,000 scripts, and supervisor's own supervisord with the same
configuration files. Each node has 1,000 partitions with one service.
"""

import os
import pwd
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.measure import Figure, of_pairs, show, timed
from slapos.node.layout import Layout
from slapos.node.supervise.events import ProcessEvents
from slapos.node.supervise.supervisor import Supervisor
from slapos.node.users import Account, account_of
from slapos.system.clock import SystemClock
from slapos.system.runner import SystemRunner

COUNT = 1000
SERVICE = "#!/bin/sh\nexec sleep 3600\n"
DEADLINE = 120.0
IDLE = 20.0
ENVIRONMENT = {"PATH": os.environ["PATH"]}
#: supervisord as supervisor has it: without our calls, with room for the descriptors it needs.
STOCK = """\
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[unix_http_server]
file = {root}/sv.sock
[supervisord]
{user}logfile = {root}/var/log/supervisord.log
pidfile = {root}/var/run/supervisord.pid
childlogdir = {root}/var/log
minfds = 8192
[include]
files = {root}/etc/supervisord.conf.d/*.conf
"""


@dataclass
class Node:
    """Folders of partitions, and the supervisord that looks after them."""

    root: Path

    @property
    def layout(self) -> Layout:
        return Layout(self.root, self.root)

    def supervisor(self) -> Supervisor:
        return Supervisor(
            self.layout,
            SystemRunner(),
            SystemClock(),
            python=sys.executable,
            environment=ENVIRONMENT,
        )

    @property
    def supervisord(self) -> psutil.Process:
        return psutil.Process(int(self.layout.supervisor_pid_file.read_text()))

    def script(self, number: int) -> Path:
        return self.layout.partition(f"slappart{number}") / "etc" / "service" / "web"

    def make_partition(self, number: int) -> None:
        script = self.script(number)
        script.parent.mkdir(parents=True)
        script.write_text(SERVICE)
        script.chmod(0o755)
        os.chown(self.layout.partition(f"slappart{number}"), *account().owner)

    def run_partition(self, supervisor: Supervisor, number: int) -> None:
        reference = f"slappart{number}"
        supervisor.run_partition(reference, self.layout.partition(reference), account())

    def wait_until_running(self, supervisor: Supervisor) -> None:
        """Wait until all services run and have become what they are."""
        wait_until(lambda: sum(p.is_running for p in supervisor.processes()) == COUNT)
        own = self.supervisord.pid
        wait_until(lambda: all(child.name() == "sleep" for child in psutil.Process(own).children()))

    def end(self, supervisor: Supervisor) -> None:
        supervisor._server.supervisor.shutdown()
        wait_until(lambda: not self.layout.supervisor_pid_file.exists())


def account() -> Account:
    """Whom services run as: nobody where we are root, else ourselves."""
    if os.geteuid() != 0:
        return account_of(os.geteuid(), os.getegid())
    nobody = pwd.getpwnam("nobody")
    return account_of(nobody.pw_uid, nobody.pw_gid)


def wait_until(is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not is_true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {DEADLINE} s")
        time.sleep(0.02)


def megabytes(process: psutil.Process) -> float:
    """Return the proportional set size."""
    return float(process.memory_full_info().pss) / 1e6


def busy(process: psutil.Process) -> float:
    """Return how much of a core a process uses while nothing happens, in percent."""
    before = sum(process.cpu_times()[:2])
    time.sleep(IDLE)
    return 100 * (sum(process.cpu_times()[:2]) - before) / IDLE


@contextmanager
def new_node() -> Iterator[Node]:
    root = Path(tempfile.mkdtemp(prefix="bench-"))
    root.chmod(0o755)
    node = Node(root)
    try:
        yield node
    finally:
        if node.layout.supervisor_pid_file.exists():
            node.supervisord.terminate()  # and with it all services
            wait_until(lambda: not node.layout.supervisor_pid_file.exists())
        shutil.rmtree(root)


def fill(node: Node, count: int) -> Supervisor:
    """Start supervisord and so many partitions, one by one."""
    supervisor = node.supervisor()
    supervisor.ensure_running()
    for number in range(count):
        node.make_partition(number)
        node.run_partition(supervisor, number)
    return supervisor


def one_more(node: Node, supervisor: Supervisor) -> float:
    """Return how long it takes to bring about another partition, which is removed again."""
    node.make_partition(COUNT)
    taken = timed(lambda: node.run_partition(supervisor, COUNT))
    supervisor.stop_partition(f"slappart{COUNT}")
    shutil.rmtree(node.layout.partition(f"slappart{COUNT}"))
    return taken


def beside_ten(node: Node, supervisor: Supervisor) -> list[Figure]:
    """Return what work on a partition costs here, beside a node with 10 partitions."""
    with new_node() as small:
        other = fill(small, 10)
        added = [(one_more(node, supervisor), one_more(small, other)) for _ in range(50)]
        same = [
            (
                timed(lambda: node.run_partition(supervisor, 7)),
                timed(lambda: small.run_partition(other, 7)),
            )
            for _ in range(50)
        ]
    return [
        of_pairs(f"{what} when there are 1,000", "when there are 10", pairs)
        for what, pairs in (
            ("adding a partition", added),
            ("a partition in which nothing changed", same),
        )
    ]


def in_use(node: Node) -> list[Figure]:
    """Return the figures of a node whose partitions were added one by one."""
    supervisor = node.supervisor()
    supervisor.ensure_running()
    empty = megabytes(node.supervisord)
    fill(node, COUNT)
    node.wait_until_running(supervisor)
    full = megabytes(node.supervisord)
    return [
        Figure(
            name="memory of supervisord with 1,000 processes",
            median=full,
            unit="MB",
            beside="with none",
            beside_median=empty,
            ratio=full / empty,
        ),
        Figure(name="a core, idle with 1,000 processes", median=busy(node.supervisord), unit="%"),
        *beside_ten(node, supervisor),
        hearing(node, supervisor),
    ]


def hearing(node: Node, supervisor: Supervisor) -> Figure:
    """Return how long it takes until the agent hears that a process was killed."""
    times = []
    with ProcessEvents(node.layout.node_socket) as events:
        for process in supervisor.processes()[:50]:
            started = time.perf_counter()
            os.kill(process.pid, signal.SIGKILL)
            while not any(e.event == "EXITED" for e in events.wait(10.0)):
                pass
            times.append(time.perf_counter() - started)
    return Figure(
        name="from the end of one of 1,000 processes to its event",
        median=1000 * statistics.median(times),
        unit="ms",
        runs=50,
        notes={"longest": 1000 * max(times)},
    )


def boot(node: Node) -> tuple[float, float]:
    """Return how long our supervisord takes to read all and start all, and its memory then."""
    supervisor = node.supervisor()

    def start() -> None:
        supervisor.ensure_running()
        supervisor.start_ended()
        node.wait_until_running(supervisor)

    taken = timed(start)
    memory = megabytes(node.supervisord)
    node.end(supervisor)
    return taken, memory


def boot_stock(node: Node) -> tuple[float, float, float]:
    """Return the same of supervisor's own, and how busy it is when nothing happens."""
    own = node.layout.supervisor_configuration
    ours = own.read_text()
    user = "user = root\n" if os.geteuid() == 0 else ""
    own.write_text(STOCK.format(root=node.root, user=user))
    supervisor = node.supervisor()

    def start() -> None:
        subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(own)],
            check=True,
            cwd=node.root,
            env=ENVIRONMENT,
        )
        wait_until(supervisor.is_running)
        supervisor.start_ended()
        node.wait_until_running(supervisor)

    taken = timed(start)
    found = taken, megabytes(node.supervisord), busy(node.supervisord)
    for child in node.supervisord.children():
        child.kill()  # it would stop one group after the other, up to one a second
    wait_until(lambda: not any(p.is_running for p in supervisor.processes()))
    node.end(supervisor)
    own.write_text(ours)
    return found


def bare(node: Node) -> float:
    """Return how long bare fork and exec takes for the same scripts."""
    running = []

    def start() -> None:
        for number in range(COUNT):
            running.append(
                subprocess.Popen(
                    [node.script(number)],
                    user=account().uid if os.geteuid() == 0 else None,
                    env=ENVIRONMENT,
                    start_new_session=True,
                )
            )
        wait_until(lambda: all(psutil.Process(p.pid).name() == "sleep" for p in running))

    taken = timed(start)
    for process in running:
        process.kill()
    for process in running:
        process.wait()
    return taken


def main() -> None:
    with new_node() as node:
        figures = in_use(node)
        node.end(node.supervisor())
        ours, stock, naked = [], [], []
        for _ in range(3):
            ours.append(boot(node))
            stock.append(boot_stock(node))
            naked.append(bare(node))
    middle = statistics.median
    started = middle(taken for taken, _ in ours)
    for beside, times in (
        ("fork and exec", naked),
        ("supervisor's own supervisord", [taken for taken, _, _ in stock]),
    ):
        figures.append(
            Figure(
                name="supervisord and 1,000 processes started",
                median=started,
                beside=beside,
                beside_median=middle(times),
                ratio=started / middle(times),
                runs=3,
            )
        )
    memory = middle(used for _, used in ours)
    figures.append(
        Figure(
            name="memory of supervisord that started 1,000 processes",
            median=memory,
            unit="MB",
            beside="supervisor's own",
            beside_median=middle(used for _, used, _ in stock),
            ratio=memory / middle(used for _, used, _ in stock),
            runs=3,
        )
    )
    figures.append(
        Figure(
            name="a core, supervisor's own idle with 1,000 processes",
            median=middle(percent for _, _, percent in stock),
            unit="%",
            runs=3,
        )
    )
    show(figures)


if __name__ == "__main__":
    main()
