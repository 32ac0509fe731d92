"""What a buildout costs: in a Python of its own, and in a fork of the warm process."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.measure import Figure, in_turn, show
from slapos.node.assembly import make_runner
from slapos.node.build.folder import buildout_script
from slapos.protocol.marshal import dumps, loads
from slapos.protocol.messages import PartitionInformation
from slapos.system.process_tree import children_of
from slapos.system.runner import Runner, SystemRunner
from slapos.system.settings import clean_environment
from slapos.system.warm_runner import WarmRunner
from tests.integration.node.fake_master import FakeMaster, running_master

RUNS = 40
EMPTY = "[buildout]\nparts =\noffline = true\n"
#: A template, a program, a promise, what the master says, and what it is told.
SMALL = """
[buildout]
parts = page server listens publish
offline = true

[slap-connection]
computer-id = node
partition-id = slappart0
server-url = {url}
software-release-url = http://example.com/software.cfg
requested-state = started

[slap-configuration]
recipe = slapos:slapconfiguration

[directory]
recipe = slapos:mkdirectory
service = ${{buildout:directory}}/etc/service
plugin = ${{buildout:directory}}/etc/plugin

[page]
recipe = slapos:template.jinja2
inline = {{{{ name }}}}
output = ${{buildout:directory}}/index.html
context =
  key name slap-configuration:configuration.name

[server]
recipe = slapos:wrapper
wrapper-path = ${{directory:service}}/server
command-line = /bin/sleep 600

[listens]
recipe = slapos:promise.plugin
promise = check_socket_listening
output = ${{directory:plugin}}/listens.py
config-host = 127.0.0.1
config-port = 1

[publish]
recipe = slapos:publish
url = http://127.0.0.1:1/
"""


class Partition:
    """A folder with a profile, and how its buildout is run."""

    def __init__(self, folder: Path, profile: str) -> None:
        self.folder = folder
        self._profile = profile
        self._script = folder.parent / "bin" / "buildout"
        self._script.parent.mkdir(exist_ok=True)
        self._script.write_text(buildout_script(sys.executable))
        self.clear()

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        (self.folder / "buildout.cfg").write_text(self._profile)

    def run(self, runner: Runner, **more: str) -> None:
        runner.run(
            [sys.executable, str(self._script), "-U"],
            cwd=self.folder,
            environment=clean_environment(os.environ, installs=False) | more,
        )


def bare_fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def processor_time(action: Callable[[], object], pid: int) -> float:
    """Return the seconds of a processor that children of process `pid` took for `action`, each."""
    before = _children_time(pid)
    for _ in range(RUNS):
        action()
    deadline = time.monotonic() + 1
    while pid != os.getpid() and children_of(pid) and time.monotonic() < deadline:
        time.sleep(0.01)  # the last one is being waited for
    return (_children_time(pid) - before) / RUNS


def _children_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int, kind: str) -> float:
    """Return MB of `kind` (Pss, Rss) of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1000
    return 0.0


def empty_buildout(folder: Path, cold: Runner, warm: Runner) -> list[Figure]:
    partition = Partition(folder / "empty", EMPTY)
    return [
        in_turn(
            "a buildout with nothing to do, warm",
            lambda: partition.run(warm),
            "the same, cold",
            lambda: partition.run(cold),
            runs=15,
        ),
        in_turn(
            "the same, warm",
            lambda: partition.run(warm),
            "fork and wait of this process",
            bare_fork,
            runs=15,
        ),
    ]


def small_release(
    folder: Path, master: FakeMaster, cold: Runner, warm: Runner, pid: int
) -> list[Figure]:
    partition = Partition(folder / "small", SMALL.format(url=master.url))
    information = folder / "information"
    told = PartitionInformation(
        node="node",
        reference="slappart0",
        instance_guid="guid",
        parameters={"name": "World", "timestamp": "1"},
    )
    named = {"SLAPOS_PARTITION_INFORMATION": str(information)}

    def again(runner: Runner) -> None:
        partition.run(runner, **named)

    def first(runner: Runner) -> None:
        partition.clear()
        information.write_bytes(dumps(told.to_marshalled()))
        again(runner)

    figures = []
    for name, action in (("its first buildout", first), ("its buildout again", again)):
        if action is again:  # now the master says what was published
            form = master.told[-1][1]
            connection = loads(form["connection_xml"].encode())
            information.write_bytes(dumps(replace(told, connection=connection).to_marshalled()))
            again(warm)
        calls = len(master.told) + len(master.asked)
        spent = [
            processor_time(lambda a=action: a(warm), pid),
            processor_time(lambda a=action: a(cold), os.getpid()),
        ]
        calls = (len(master.told) + len(master.asked) - calls) // (2 * RUNS)
        figures.append(
            Figure(
                f"a small release, {name}, warm: processor",
                spent[0],
                beside="cold",
                beside_median=spent[1],
                ratio=spent[0] / spent[1],
                runs=RUNS,
                notes={"calls_to_the_master": calls},
            )
        )
    return figures


def main() -> None:
    cold, warm = SystemRunner(), make_runner()
    assert isinstance(warm, WarmRunner)
    with tempfile.TemporaryDirectory() as name, running_master() as master:
        folder = Path(name)
        begun = time.perf_counter()
        Partition(folder / "begin", EMPTY).run(warm)
        start = Figure("the first warm buildout, with the start", time.perf_counter() - begun)
        (pid,) = map(
            int, Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        )
        figures = [start, *empty_buildout(folder, cold, warm)]
        figures += small_release(folder, master, cold, warm, pid)
        for kind in ("Pss", "Rss"):
            figures.append(Figure(f"the warm process, {kind}", memory(pid, kind), unit="MB"))
    show(figures)


if __name__ == "__main__":
    main()
