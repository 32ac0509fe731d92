"""`slapos node software`, with a real HTTP master and a shell script in the place of buildout."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from slapos.node.assembly import make_doors
from slapos.node.build.release import BuildOptions
from slapos.node.doors import Doors
from slapos.node.passes import software_pass
from slapos.node.settings import read_node_settings
from slapos.protocol.messages import ReleaseAssignment
from slapos.protocol.states import InstallationState
from tests.integration.node.world import IS_ROOT, NOBODY, World, is_running, is_written, until

#: What a build does unless a test wants something else.
BUILD = "echo built >> runs; env > environment; umask > umask; id -u > uid"
FAILS = "echo built >> runs; echo Downloading; echo 'Error: the hash is wrong'; exit 3"


class Software:
    """A release in a folder of this machine, and the folder that it is built in."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.source = world.root / "release"
        self.source.mkdir(mode=0o755)
        self.source.chmod(0o755)
        self.write("software.cfg", "[buildout]\nextends =\n  base.cfg  # ours\n")
        self.write("base.cfg", "[a]\nurl = ${:_profile_base_location_}/instance.cfg.in\n")
        self.write("instance.cfg.in", "[buildout]\nparts =\n")
        self.url = f"{self.source}/software.cfg"
        world.master.releases = [ReleaseAssignment(url=self.url, node="node")]
        self.builds(BUILD)

    def write(self, name: str, text: str) -> None:
        (self.source / name).write_text(text)
        (self.source / name).chmod(0o644)

    def builds(self, script: str) -> None:
        """Have the build run a shell script, in the place of the node's Python."""
        self.world.script(self.world.root / "python", f"#!/bin/sh\n{script}\n")

    @property
    def folder(self) -> Path:
        return self.world.layout.release(self.url)

    @property
    def runs(self) -> int:
        path = self.folder / "runs"
        return path.read_text().count("built") if path.exists() else 0

    def doors(self) -> Doors:
        doors = make_doors(read_node_settings(self.world.configuration, {}))
        return replace(doors, python=str(self.world.root / "python"))

    def build(self, **options: bool) -> int:
        return software_pass(self.doors(), BuildOptions(**options))


@pytest.fixture
def software(world: World) -> Software:
    return Software(world)


def test_a_release_is_built_once_by_the_software_user_in_a_clean_environment(
    software: Software, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "not for builds")
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.example/simple")
    assert [software.build(), software.build()] == [0, 0]
    assert software.runs == 1
    assert software.world.master.calls() == ["buildingSoftwareRelease", "availableSoftwareRelease"]
    environment = (software.folder / "environment").read_text()
    assert "SECRET_TOKEN" not in environment
    assert "PIP_INDEX_URL=http://index.example/simple" in environment
    assert f"HOME={software.folder}\n" in environment
    if IS_ROOT:
        assert (software.folder / "uid").read_text().strip() == str(NOBODY.pw_uid)
        assert (software.folder / "umask").read_text().strip() == "0027"
    text = (software.folder / "buildout.cfg").read_text()
    assert text.startswith(f"[buildout]\nextends = {software.url}\nshared-part-list =\n")
    log = (software.folder / ".slapgrid" / "log" / "build.log").read_text()
    assert "-N -c" in log


@pytest.mark.parametrize("name", ["software.cfg", "base.cfg", "instance.cfg.in"])
def test_a_changed_file_of_a_local_release_builds_it_again(software: Software, name: str) -> None:
    software.build()
    text = (software.source / name).read_text()
    software.write(name, text + "\n# changed\n")
    assert software.build() == 0
    assert software.runs == 2


def test_force_builds_again(software: Software) -> None:
    software.build()
    software.build(force=True)
    assert software.runs == 2


def test_a_failed_build_is_told_and_waits(
    software: Software, caplog: pytest.LogCaptureFixture
) -> None:
    software.builds(FAILS)
    assert software.build() == 1
    assert software.world.master.calls() == ["buildingSoftwareRelease", "softwareReleaseError"]
    assert "Error: the hash is wrong" in software.world.master.errors()[0]
    assert "Error: the hash is wrong" in caplog.text
    caplog.clear()
    assert software.build() == 1
    assert software.runs == 1
    assert "next try in" in caplog.text
    assert "--now" in caplog.text
    assert software.build(now=True) == 1
    assert software.runs == 2
    software.builds(BUILD)
    software.write("base.cfg", "[b]\n")
    assert software.build() == 0
    assert software.runs == 3


def test_one_failure_does_not_stop_the_others(software: Software) -> None:
    software.builds("grep -q bad buildout.cfg && exit 1; " + BUILD)
    other = ReleaseAssignment(url="http://example.com/bad.cfg", node="node")
    software.world.master.releases.insert(0, other)
    assert software.build() == 1
    assert (software.folder / ".completed").exists()


def test_a_build_that_hangs_is_ended_with_all_it_started(software: Software) -> None:
    software.world.configure(software_timeout="0.5")
    software.builds("sleep 600 & echo $! > child; wait")
    assert software.build() == 1
    assert "did not end within 0.5 s" in software.world.master.errors()[0]
    child = int((software.folder / "child").read_text())
    until(lambda: not is_running(child), "the grandchild ends")


def test_a_killed_build_is_taken_up_again(software: Software) -> None:
    software.builds("echo $$ > begun; sleep 600")
    main = (
        "import sys; sys.path[0:0] = [sys.argv[3]]\n"
        "from dataclasses import replace; from pathlib import Path\n"
        "from slapos.node.assembly import make_doors\n"
        "from slapos.node.passes import software_pass\n"
        "from slapos.node.build.release import BuildOptions\n"
        "from slapos.node.settings import read_node_settings\n"
        "doors = make_doors(read_node_settings(Path(sys.argv[1]), {}))\n"
        "software_pass(replace(doors, python=sys.argv[2]), BuildOptions())\n"
    )
    words = [str(software.world.configuration), str(software.world.root / "python"), os.getcwd()]
    with subprocess.Popen([sys.executable, "-c", main, *words]) as process:
        until(lambda: is_written(software.folder / "begun"), "the build begins")
        process.kill()
    left = int((software.folder / "begun").read_text())
    assert is_running(left)
    software.builds(BUILD)
    assert software.build() == 0
    assert software.runs == 1
    assert not is_running(left)


def test_a_lost_report_is_sent_again_without_a_build(software: Software) -> None:
    failures = software.world.master.failures
    failures["availableSoftwareRelease"] = (500, b"")
    assert software.build() == 1
    failures.clear()
    assert software.build() == 0
    assert software.runs == 1
    assert software.world.master.calls()[-1] == "availableSoftwareRelease"


def test_a_destroyed_release_is_removed_with_its_read_only_folders(software: Software) -> None:
    software.builds(BUILD + "; mkdir -p eggs/a; touch eggs/a/b; chmod 500 eggs/a")
    software.build()
    destroyed = ReleaseAssignment(url=software.url, node="node", state=InstallationState.DESTROYED)
    software.world.master.releases = [destroyed]
    assert software.build() == 0
    assert not software.folder.exists()
    assert software.world.master.calls()[-1] == "destroyedSoftwareRelease"


def test_garbage_is_what_the_master_does_not_name_never_what_was_left_out(
    software: Software,
) -> None:
    software.build()
    garbage = software.world.layout.release("http://example.com/old.cfg")
    garbage.mkdir()
    (garbage / "buildout.cfg").touch()
    other = "http://example.com/other.cfg"
    software.world.master.releases.append(ReleaseAssignment(url=other, node="node"))
    options = BuildOptions(force=True)
    software_pass(software.doors(), options, only=[other], garbage_collect=True)
    assert not garbage.exists()
    assert software.folder.exists()
    assert software.runs == 1


def test_only_forces(software: Software) -> None:
    # `bin/buildout` runs the node's own Python here, which is no matter: it is seen to have run.
    software.build()
    log = software.folder / ".slapgrid" / "log" / "build.log"
    before = log.read_text()
    software.world.run("software", "--only", f" {software.url} ,")
    assert len(log.read_text()) > len(before)


def test_a_full_disk_is_said(software: Software, caplog: pytest.LogCaptureFixture) -> None:
    software.world.configure(software_min_free_space="100000T")
    assert software.build() == 1
    assert "software_min_free_space" in caplog.text


def mounted(*words: str) -> bool:
    return not subprocess.run(["mount", *words], check=False, capture_output=True).returncode


@pytest.fixture
def small_disk(world: World) -> Iterator[str]:
    """A disk of 1 MiB for the releases."""
    root = str(world.layout.software_root)
    owner = f"uid={NOBODY.pw_uid},gid={NOBODY.pw_gid}"
    if not IS_ROOT or not mounted("-t", "tmpfs", "-o", f"size=1m,mode=0755,{owner}", "tmpfs", root):
        pytest.skip("a small disk cannot be mounted here")
    yield root
    subprocess.run(["umount", "-l", root], check=True)


@pytest.mark.root
def test_a_disk_that_becomes_full_fails_the_build_and_no_more(
    software: Software, small_disk: str, caplog: pytest.LogCaptureFixture
) -> None:
    software.world.configure(software_min_free_space="0")
    software.builds("dd if=/dev/zero of=fill bs=1M count=4 && " + BUILD)
    assert software.build() == 1
    assert "No space left on device" in software.world.master.errors()[0]
    assert "No space left on device" in caplog.text
    assert not (software.folder / ".completed").exists()
    assert mounted("-o", "remount,size=20m", small_disk)
    assert software.build(now=True) == 0
    assert software.world.master.calls()[-1] == "availableSoftwareRelease"


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="only root builds as another user")
def test_a_release_behind_a_closed_folder_names_that_folder(
    software: Software, caplog: pytest.LogCaptureFixture
) -> None:
    software.source.chmod(0o700)
    assert software.build() == 1
    assert f"because {software.source} is closed to it" in caplog.text
    assert f"chmod o+x {software.source}" in caplog.text


def test_a_change_that_could_not_be_built_yet_is_built_later(software: Software) -> None:
    software.build()
    software.write("software.cfg", "[buildout]\n# changed\n")
    software.world.configure(software_min_free_space="100000T")
    assert software.build() == 1
    software.world.configure()
    assert software.build() == 1  # it waits
    assert software.build(now=True) == 0
    assert software.runs == 2


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="only root may write where a release must not")
def test_a_release_cannot_have_the_node_write_elsewhere(
    software: Software, caplog: pytest.LogCaptureFixture
) -> None:
    outside = software.world.root / "outside"
    outside.mkdir()
    software.builds(BUILD + f"; rm -rf bin; ln -s {outside} bin")
    assert software.build() == 0
    assert software.build(force=True) == 1
    assert list(outside.iterdir()) == []
    assert "remove it" in caplog.text
