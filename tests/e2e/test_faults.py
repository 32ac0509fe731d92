"""`kill -9` of any one process: all heals by itself, nothing is lost, nothing is there twice."""

import os
import signal
from collections.abc import Callable

import psutil
import pytest

from tests.e2e.greeting import Greeting, look_at_everything, pid_of, status, until
from tests.e2e.machine import Machine

pytestmark = pytest.mark.e2e

#: A release whose build, and whose instances, wait where `gate` is a pipe that nobody writes to.
SOFTWARE = """\
[buildout]
parts = gate instance-profile

[gate]
recipe = slapos:template
url = {folder}/build-gate
output = ${{buildout:directory}}/gate

[instance-profile]
recipe = slapos:template
url = ${{:_profile_base_location_}}/instance.cfg.in
output = ${{buildout:directory}}/instance.cfg
"""
INSTANCE = """\
[buildout]
parts = gate service

[gate]
recipe = slapos:template
url = {folder}/instance-gate
output = $${{buildout:directory}}/gate

[service]
recipe = slapos:wrapper
wrapper-path = $${{buildout:directory}}/etc/service/sleeper
command-line = /bin/sleep 86400
"""


@pytest.fixture(scope="module")
def greeting(machine: Machine) -> Greeting:
    made = Greeting.ordered(machine, "hello", "Ada")
    (made.partition / "srv" / "kept").write_text("data")
    return made


def the_service(greeting: Greeting) -> int:
    (pid,) = greeting.processes()
    return pid


def the_watchdog(greeting: Greeting) -> int:
    processes = status(greeting.machine)["processes"]
    return next(int(p["pid"]) for p in processes if p["name"] == "watchdog")


def named(program: str) -> Callable[[Greeting], int]:
    return lambda greeting: pid_of(greeting.machine, program)


@pytest.mark.parametrize(
    ("find", "service_runs_on"),
    [
        pytest.param(the_service, False, id="the service"),
        pytest.param(named("inst/supervisord"), False, id="supervisord of the node"),
        pytest.param(the_watchdog, True, id="the watchdog"),
        pytest.param(named("node"), True, id="the node"),
        pytest.param(named("proxy"), True, id="the master"),
        pytest.param(named("supervisord"), True, id="supervisord of the standalone"),
    ],
)
def test_a_killed_process_comes_back_once(
    greeting: Greeting, find: Callable[[Greeting], int], service_runs_on: bool
) -> None:
    before = greeting.processes()
    killed = find(greeting)
    os.kill(killed, signal.SIGKILL)

    def is_well() -> bool:
        try:
            now = find(greeting)
        except (StopIteration, OSError, ValueError):  # not there yet
            return False
        known = status(greeting.machine)
        return (
            now != killed
            and psutil.pid_exists(now)
            and known["running"]
            and "Hello Ada!" in greeting.page()
        )

    until(is_well, "it is back")
    look_at_everything(greeting.machine)
    assert is_well()
    assert len(greeting.processes()) == 1
    assert (greeting.processes() == before) is service_runs_on
    assert (greeting.partition / "srv" / "kept").read_text() == "data"
    until(lambda: greeting.machine.json("service", "info", "hello")["status"] == "green", "healthy")


class Slow:
    """The release that waits at its gates."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.folder = machine.directory / "slow"
        self.folder.mkdir()
        for name, text in (("software.cfg", SOFTWARE), ("instance.cfg.in", INSTANCE)):
            (self.folder / name).write_text(text.format(folder=self.folder))
        self.close("build-gate")
        self.close("instance-gate")

    def close(self, name: str) -> None:
        os.mkfifo(self.folder / name)
        (self.folder / name).chmod(0o644)

    def open(self, name: str) -> None:
        (self.folder / name).unlink()
        (self.folder / name).write_text("open\n")

    def buildouts(self, where: str) -> list[int]:
        """The buildouts at work below a folder of the machine."""
        place = str(self.machine.directory / where)
        return [
            process.pid
            for process in psutil.process_iter(["cmdline", "cwd"])
            if (process.info["cwd"] or "").startswith(place)
            and any(word.endswith("/bin/buildout") for word in process.info["cmdline"] or ())
        ]

    def phase(self) -> str:
        (instance,) = self.machine.json("service", "info", "slow")["tree"]
        return str(instance["phase"])


def test_a_build_and_an_instantiation_killed_half_way_are_taken_up_again(
    greeting: Greeting,
) -> None:
    machine = greeting.machine
    slow = Slow(machine)
    machine.slapos("request", "slow", str(slow.folder), "--quiet")
    for where, gate, phase in (
        ("soft", "build-gate", "building"),
        ("inst", "instance-gate", "instantiating"),
    ):
        # With the node that waits for it: the one that goes on must not meet the other's buildout.
        until(lambda: slow.buildouts(where), "the buildout runs")  # noqa: B023
        (first,) = slow.buildouts(where)
        os.kill(pid_of(machine, "node"), signal.SIGKILL)
        until(lambda: slow.buildouts(where) not in ([], [first]), "another buildout")  # noqa: B023
        (second,) = slow.buildouts(where)
        assert slow.phase() == phase
        # The buildout alone: it failed, and is tried again.
        os.kill(second, signal.SIGKILL)
        until(lambda: slow.phase() == "failed", "the failure is told")
        assert "Hello Ada!" in greeting.page()
        slow.open(gate)
    until(lambda: slow.phase() == "healthy", "all is made after all")
    sleepers = [p for p in status(machine)["processes"] if "sleeper" in p["name"]]
    assert [process["state"] for process in sleepers] == ["RUNNING"]
