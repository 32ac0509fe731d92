"""What promises cost: 10,000 a minute as a share of one core, beside as many bare `true`."""

import os
import resource
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.measure import Figure, show
from slapos.node.assembly import make_runner
from slapos.node.promise.check import ProcessPromiseChecker, PromiseContext
from slapos.system.runner import Runner
from slapos.system.settings import clean_environment, environment

#: A twentieth of 1,000 partitions: what a partition costs does not depend on how many there are.
PARTITIONS, PROMISES = 50, 10
ROUNDS = 3
A_MINUTE = 10_000
PLUGIN = """\
import sys
sys.path[0:0] = []
extra_config_dict = {"number": 1}
from slapos.node.promise.generic import GenericPromise


class RunPromise(GenericPromise):
    def sense(self):
        self.logger.info("all is well")
"""
OURS = """\
import sys
sys.path[0:0] = []

extra_config_dict = {options!r}

from slapos.node.promise.plugin.{plugin} import RunPromise
"""
TRUE = shutil.which("true") or "/bin/true"


def processor_seconds() -> float:
    """Return what this process, and all its children that ended and were waited for, have used."""
    used = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        used += usage.ru_utime + usage.ru_stime
    return used


def warm_seconds() -> float:
    """Return what children that are still there have used, with theirs: the warm process."""
    ticks = os.sysconf("SC_CLK_TCK")
    used = 0
    for task in os.listdir("/proc/self/task"):
        for pid in Path(f"/proc/self/task/{task}/children").read_text().split():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used += sum(map(int, fields[11:15]))
    return used / ticks


def used_by(action: Callable[[], None]) -> float:
    """Return the processor seconds that an action takes, those of its children included."""
    before = processor_seconds() + warm_seconds()
    action()
    return processor_seconds() + warm_seconds() - before


def bare() -> None:
    """Start `true` as often as promises are run."""
    for _ in range(PARTITIONS * PROMISES):
        os.waitpid(os.posix_spawn(TRUE, [TRUE], {}), 0)


def make_partitions(root: Path, plugin: Callable[[int], str]) -> list[PromiseContext]:
    """Make partitions with promises, and return how to check them."""
    found = []
    for number in range(PARTITIONS):
        folder = root / f"slappart{number}" / "etc" / "plugin"
        folder.mkdir(parents=True)
        for promise in range(PROMISES):
            (folder / f"promise{promise}.py").write_text(plugin(promise))
        found.append(
            PromiseContext(
                partition_directory=folder.parents[1],
                partition=folder.parents[1].name,
                node="node",
                master_url="http://127.0.0.1:1",
                python=sys.executable,
                user=None,
            )
        )
    return found


def ours(promise: int, port: int) -> str:
    """Return a plugin as most are: the socket of a service, or the file of its last error."""
    if promise % 2:
        options = {"host": "127.0.0.1", "port": str(port)}
        return OURS.format(options=options, plugin="check_socket_listening")
    options = {"filename": "errors", "state": "absent"}
    return OURS.format(options=options, plugin="check_file_state")


def check_all(runner: Runner, contexts: list[PromiseContext], *, force: bool) -> None:
    """Check every partition as the node does when nothing is wrong."""
    checker = ProcessPromiseChecker(runner, clean_environment(environment(), installs=False))
    for context in contexts:
        results = checker.check(context, mode="anomaly", force=force).results
        if len(results) != PROMISES or any(result.failed for result in results):
            raise RuntimeError(f"the promises do not hold, so their time means nothing: {results}")


def measured(name: str, runner: Runner, contexts: list[PromiseContext], *, force: bool) -> Figure:
    """Return the share of one core, in percent, that 10,000 promises a minute take."""
    share = 100 * A_MINUTE / (PARTITIONS * PROMISES) / 60
    pairs = []
    check_all(runner, contexts, force=True)
    for _ in range(ROUNDS):
        here = used_by(partial(check_all, runner, contexts, force=force))
        pairs.append((here * share, used_by(bare) * share))
    pairs.sort(key=lambda pair: pair[0] / pair[1])
    median, beside = pairs[len(pairs) // 2]
    return Figure(
        name=name,
        median=median,
        unit="% of one core",
        beside=f"{A_MINUTE} x fork+exec true",
        beside_median=beside,
        ratio=median / beside,
        runs=len(pairs),
        notes={"lowest": min(pair[0] for pair in pairs), "load": os.getloadavg()[0]},
    )


def hang_up(server: socket.socket) -> None:
    """Take connections, and end them."""
    while True:
        server.accept()[0].close()


def main() -> None:
    """Measure promises of ours and of others, due and not."""
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, args=[server], daemon=True).start()
        port = server.getsockname()[1]
        usual = make_partitions(Path(name) / "ours", lambda promise: ours(promise, port))
        other = make_partitions(Path(name) / "other", lambda _: PLUGIN)
        warm = make_runner()
        show(
            [
                measured("10,000 promises a minute, of ours", warm, usual, force=True),
                measured("the same, with classes of their own", warm, other, force=True),
                measured("asked for although none is due", warm, usual, force=False),
            ]
        )


if __name__ == "__main__":
    main()
