"""The agent with a machine that fails it: torn files, full disks, a master gone mad, a reboot."""

import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.e2e.counted import services
from tests.integration.node.world import IS_ROOT, NOBODY, URL, World, is_running, until

FEED, ALL = "v1/nodes/node/changes", "getFullComputerInformation"


@pytest.fixture
def world(world: World) -> World:
    """A world whose master is polled five times a second, with a release of one service."""
    world.configure(poll_interval="0.2")
    world.release("echo x >> runs\n" + world.installing("web"))
    return world


def started(world: World, reference: str = "slappart0") -> bool:
    return f"startedComputerPartition {reference}" in world.master.calls()


def pid(world: World, reference: str = "slappart0") -> int:
    """Return the one process of a partition's service, 0 while there is none."""
    found = services(world.partition(reference))
    assert len(found) <= 1
    return found[0] if found else 0


def lose_power(world: World) -> None:
    """End supervisord and all services at once; the agent is dead already."""
    supervisord = psutil.Process(int(world.layout.supervisor_pid_file.read_text()))
    for process in (supervisord, *supervisord.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            process.kill()
            until(lambda p=process: not is_running(p.pid))  # type: ignore[misc]


def half(content: bytes) -> bytes:
    return content[: random.Random(len(content)).randrange(1, max(len(content), 2))]


def nothing(content: bytes) -> bytes:
    return b""


def zeros(content: bytes) -> bytes:
    return bytes(len(content))


def garbage(content: bytes) -> bytes:
    return random.Random(1).randbytes(len(content) + 10)


#: What the node reads again, below instance_root or software_root.
FILES = [
    "inst/var/slapgrid/information.json",
    "inst/var/slapgrid/instance/slappart0.json",
    "inst/var/slapgrid/software/*.json",
    "inst/var/slapgrid/limits/*.json",
    "inst/var/slapgrid/journal.db*",
    "inst/var/data-log/*.db*",
    "inst/var/run/*",
    "inst/etc/supervisord.conf",
    "inst/etc/supervisord.conf.d/*.conf",
    "inst/slappart0/.timestamp",
    "inst/slappart0/.slapos-partition-information",
    "inst/slappart0/.slapgrid/promise/*",
    "soft/*/.completed",
]
#: Those that alone could do harm which the loss of another one would mend.
ALONE = [FILES[number] for number in (0, 1, 3, 4, 6, 8)]
TEARS = [
    *(([name], half) for name in ALONE),
    *((FILES, tear) for tear in (half, nothing, zeros, garbage)),
]


@pytest.mark.parametrize(
    ("names", "tear"),
    TEARS,
    ids=[f"{tear.__name__}: {names[0] if len(names) == 1 else 'all'}" for names, tear in TEARS],
)
def test_whatever_a_crash_has_torn_the_node_goes_on(
    world: World, names: list[str], tear: Callable[[bytes], bytes]
) -> None:
    world.configure(poll_interval="0.2", partition_open_files="500")
    world.want()
    with world.agent() as agent:
        until(lambda: started(world))
        agent.kill()
    lose_power(world)
    found = [path for name in names for path in world.root.glob(name) if path.is_file()]
    for path in found:
        content = path.read_bytes()
        with path.open("r+b") as stream:
            stream.truncate()
            stream.write(tear(content))
    with world.agent() as agent:
        until(lambda: pid(world), "the service is started again")
        world.want(timestamp="2")
        world.want("slappart1")
        until(lambda: started(world, "slappart1"))
        until(lambda: (world.partition() / ".timestamp").read_text() == "2")
        assert not agent.said("Traceback")
        assert agent.process.poll() is None


def test_a_reboot_with_the_cable_out_starts_everything_and_the_cable_restarts_nothing(
    world: World,
) -> None:
    key = world.root / "key"
    world.release(
        f"[ -e {key} ] || {{ echo no key; exit 1; }}\n" + world.installing("web"), "http://x/"
    )
    world.want("slappart0")
    world.want("slappart1", url="http://x/")
    with world.agent() as agent:
        until(lambda: started(world) and world.master.errors())
        agent.kill()
    lose_power(world)
    world.master.failures = dict.fromkeys((FEED, ALL), (503, b"the cable is out"))
    key.touch()
    with world.agent() as agent:
        until(lambda: pid(world), "it runs without its master")
        until(lambda: pid(world, "slappart1"), "what had failed is tried again")
        before = pid(world), pid(world, "slappart1")
        world.master.failures = {}
        until(lambda: agent.said("the master answers again"))
        until(lambda: started(world, "slappart1"), "what was done meanwhile is told")
        asked = len(world.master.asked)
        until(lambda: len(world.master.asked) > asked + 3)
        assert (pid(world), pid(world, "slappart1")) == before


MAD: dict[str, Callable[[World], object]] = {
    "500": lambda world: world.master.failures.update({FEED: (500, b""), ALL: (500, b"")}),
    "404": lambda world: world.master.failures.update({FEED: (404, b""), ALL: (404, b"")}),
    "garbage": lambda world: world.master.failures.update(
        {FEED: (200, b"\x00\xff<"), ALL: (200, b"\x00\xff<")}
    ),
    "no partitions": lambda world: vars(world.master).update(partitions={}, releases=[]),
    "silence": lambda world: setattr(world.master, "release_answer", threading.Event()),
}


@pytest.mark.parametrize("name", MAD)
def test_a_master_gone_mad_stops_no_service_and_changes_count_once_it_is_well(
    world: World, name: str
) -> None:
    world.want()
    with world.agent() as agent:
        until(lambda: started(world))
        first, partitions = pid(world), dict(world.master.partitions)
        releases = list(world.master.releases)
        MAD[name](world)
        asked = len(world.master.asked)
        until(lambda: len(world.master.asked) > asked, "it is asked in its madness")
        assert pid(world) == first
        os.kill(first, signal.SIGKILL)
        until(lambda: pid(world) not in (0, first), "what dies meanwhile is started again")
        second = pid(world)
        world.master.failures = {}
        world.master.partitions = partitions
        world.master.releases = releases
        if world.master.release_answer is not None:
            world.master.release_answer.set()
        world.want("slappart1")
        until(lambda: started(world, "slappart1"))
        assert pid(world) == second
        assert (world.partition() / "runs").read_text() == "x\n"
        assert not agent.said("Traceback")


def mount(folder: Path, size: str) -> None:
    """Put a small disk in the place of a folder, with what is in it."""
    kept = [path for path in folder.iterdir() if path.is_dir()]
    owner = folder.stat()
    options = f"size={size},mode=0755,uid={owner.st_uid},gid={owner.st_gid}"
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if not IS_ROOT or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    for path in kept:
        path.mkdir(mode=0o750)
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)


def fill(folder: Path) -> Path:
    path = folder / "fill"
    with path.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"x" * 4096)
    return path


@pytest.fixture
def small_root(world: World) -> Iterator[Path]:
    """A disk of 8 MiB for all partitions and what the node remembers."""
    folder = world.layout.instance_root
    mount(folder, "8m")
    yield folder
    (folder / "fill").unlink(missing_ok=True)
    if world.layout.supervisor_socket.exists():
        world.run("supervisorctl", "shutdown")
        until(lambda: not world.layout.supervisor_pid_file.exists())
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
def test_a_disk_that_is_full_under_all_partitions_heals_once_there_is_room(
    world: World, small_root: Path
) -> None:
    world.configure(poll_interval="0.2", instance_min_free_space="0", software_min_free_space="0")
    world.want()
    with world.agent() as agent:
        until(lambda: started(world))
        first = pid(world)
        filler = fill(small_root)
        world.want("slappart1")
        until(lambda: agent.said("failed: slappart1"))
        until(lambda: agent.said("No space left on device"))
        assert pid(world) == first
        os.kill(first, signal.SIGKILL)
        until(lambda: pid(world) not in (0, first), "services are started again all the same")
        second = pid(world)
        filler.unlink()
        until(lambda: started(world, "slappart1"), "it heals by itself")
        assert pid(world) == second
        assert agent.process.poll() is None


@pytest.fixture
def small_releases(world: World) -> Iterator[Path]:
    """A disk of 8 MiB for the releases."""
    folder = world.layout.software_root
    mount(folder, "8m")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
def test_a_disk_that_is_full_under_a_build_heals_once_there_is_room(
    world: World, small_releases: Path
) -> None:
    world.configure(poll_interval="0.2", software_min_free_space="0")
    world.release(world.installing("web"))
    profile = world.root / "release" / "software.cfg"
    profile.parent.mkdir(mode=0o755)
    text = "[buildout]\nparts = a\n[a]\nrecipe = slapos.recipe.template\ninline =\n"
    text += "  [buildout]\n  parts =\noutput = ${buildout:directory}/instance.cfg\n"
    profile.write_text(text)
    filler = fill(small_releases)
    world.want("slappart0", url=URL)
    world.want("slappart1", url=str(profile))
    with world.agent() as agent:
        until(lambda: started(world), "what is built needs no room there")
        until(lambda: agent.said("No space left on device"))
        assert not (world.layout.release(str(profile)) / ".completed").exists()
        assert not started(world, "slappart1")
        filler.unlink()
        until(lambda: agent.log.read_text().count(f"building {profile}") > 1, "it is tried again")
        until(lambda: started(world, "slappart1"), "it is built by itself")
        assert not agent.said("Traceback")
