"""Instances whose buildout is the real one, run in forks of a warm process."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from slapos.node.build.folder import buildout_script
from slapos.node.buildout_program import MARK
from tests.integration.node.world import IS_ROOT, MAIN, NOBODY, World, is_running, until

PROFILE = """
[buildout]
parts = script publish

[script]
recipe = slapos:wrapper
wrapper-path = ${buildout:directory}/etc/run/stay
command-line = sleep 600

[publish]
recipe = slapos:publish
url = http://example.com/
"""


@pytest.fixture
def blocked(world: World) -> Iterator[threading.Event]:
    """Hold what is published until this is set."""
    event = threading.Event()

    def hold(call: str, _form: dict[str, str]) -> None:
        if call == "setComputerPartitionConnectionXml":
            event.wait(30)

    world.master.reaction = hold
    yield event
    event.set()


def want(world: World, script: str = "") -> None:
    folder = world.release(profile=PROFILE)
    world.script(folder / "bin" / "buildout", script or buildout_script(sys.executable))
    world.want()


def marked(folder: Path) -> list[psutil.Process]:
    """Return the processes that are marked as the buildout of a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_a_buildout_in_a_fork_is_marked_and_of_its_user_and_ends_with_a_killed_node(
    world: World, blocked: threading.Event
) -> None:
    want(world)
    words = ["node", "instance", "--cfg", str(world.configuration)]
    with subprocess.Popen([sys.executable, "-c", MAIN, *words]) as node:
        until(lambda: world.master.calls("setComputerPartitionConnectionXml"), "it publishes")
        (buildout,) = marked(world.partition())
        warm = buildout.ppid()
        assert warm != node.pid
        assert "slapos.system.warm_process" in psutil.Process(warm).cmdline()
        assert str(world.layout.release("http://example.com/hello/software.cfg")) in " ".join(
            buildout.cmdline()
        )
        assert buildout.cwd() == str(world.partition())
        if IS_ROOT:
            assert {*buildout.uids()} == {NOBODY.pw_uid}
        node.kill()
    until(lambda: not is_running(warm) and not is_running(buildout.pid), "all of it ends")
    blocked.set()
    assert world.run("instance").returncode == 0
    assert (world.partition() / "etc" / "run" / "stay").exists()


def test_what_left_its_session_is_found_by_its_mark(world: World, blocked: threading.Event) -> None:
    """As a buildout's daemon would: the mark is in the environment that a fork hands on."""
    want(world)
    words = ["node", "instance", "--cfg", str(world.configuration)]
    with subprocess.Popen([sys.executable, "-c", MAIN, *words]) as node:
        until(lambda: world.master.calls("setComputerPartitionConnectionXml"), "it publishes")
        (buildout,) = marked(world.partition())
        daemon = subprocess.Popen(
            ["sleep", "600"], env=buildout.environ(), start_new_session=True, cwd="/"
        )
        node.kill()
    blocked.set()
    assert is_running(daemon.pid)
    assert world.run("instance").returncode == 0
    assert daemon.wait(10) < 0


@pytest.mark.skipif(not IS_ROOT, reason="only root may become another user")
def test_a_buildout_makes_what_its_user_may_make(world: World) -> None:
    want(world)
    assert world.run("instance").returncode == 0
    made = world.partition() / "etc" / "run" / "stay"
    assert made.stat().st_uid == NOBODY.pw_uid
    assert not (world.partition() / ".installed.cfg").stat().st_mode & 0o007
