"""`slapos:debian`, with the real apt and dpkg, on a small archive of our own on disk."""

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from slapos.system.runner import Result, SystemRunner
from slapos.system.settings import clean_environment, environment
from tests.integration.recipes.running_buildout import build, nobody

pytestmark = pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="needs apt and dpkg"
)

HELLO = '#!/bin/sh\nprintf "%s\\n" "$LD_LIBRARY_PATH"\ncat "$(dirname "$0")/../share/hello/text"\n'


@dataclass
class Archive:
    """A folder that apt takes for an archive."""

    folder: Path
    entries: dict[str, str] = field(default_factory=dict)

    def publish(
        self,
        name: str,
        version: str,
        files: dict[str, str],
        *,
        depends: str = "",
        links: dict[str, str] | None = None,
    ) -> Path:
        """Add a package; a file below a folder named bin is a program."""
        root = self.folder / "work" / name
        shutil.rmtree(root, ignore_errors=True)
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content)
            (root / path).chmod(0o4755 if "bin/" in path else 0o644)
        for path, target in (links or {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).symlink_to(target)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
        control += "Maintainer: nobody <nobody@localhost>\nDescription: a test\n"
        control += f"Depends: {depends}\n" if depends else ""
        (root / "DEBIAN").mkdir(parents=True)
        (root / "DEBIAN/control").write_text(control)
        file = self.folder / f"{name}_{version}_all.deb"
        SystemRunner().run(
            ["dpkg-deb", "--root-owner-group", "-b", str(root), str(file)],
            cwd=self.folder,
            environment=clean_environment(environment()),
        )
        sha = hashlib.sha256(file.read_bytes()).hexdigest()
        self.entries[name] = (
            f"{control}Filename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {sha}\n"
        )
        self.write_index()
        return file

    def write_index(self) -> None:
        """Write what apt reads of it."""
        (self.folder / "Packages").write_text("\n".join(self.entries.values()))

    def part(self, *options: str) -> str:
        """Return a buildout part that takes `hello` from this archive."""
        sources = self.folder / "sources.list"
        sources.write_text(f"deb [trusted=yes] file:{self.folder} ./\n")
        settings = (
            f"Dir::Etc::sourcelist={sources}\n    Dir::Etc::sourceparts=-\n    Acquire::Retries=0"
        )
        text = f"parts = hello\n[hello]\nrecipe = slapos:debian\napt-options = {settings}\n"
        return text + "\n".join(["offline = false", "packages = hello", *options]) + "\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return a folder that other users can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="slapos-debian-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def archive(directory: Path) -> Archive:
    folder = directory / "archive"
    folder.mkdir()
    made = Archive(folder)
    made.publish(
        "hello",
        "1.0",
        {"usr/bin/hello": HELLO, "etc/hello/text": "good morning\n"},
        links={"usr/share/hello/text": "/etc/hello/text"},
        depends="hello-data (>= 1.0), libc6",
    )
    made.publish("hello-data", "1.0", {"usr/lib/hello-private/libhello.so.1": "", "lib/udev/x": ""})
    return made


def run_hello(program: Path) -> Result:
    return SystemRunner().run(
        [str(program)], cwd=Path("/"), environment={"PATH": os.environ["PATH"]}
    )


def test_packages_come_with_what_they_need_and_work_from_the_part(
    archive: Archive, directory: Path
) -> None:
    built = build(directory, archive.part())
    assert built.status == 0, built.output
    part = directory / "parts/hello"
    library_path, text = run_hello(part / "wrappers/hello").output.splitlines()
    assert text == "good morning"
    assert any((Path(entry) / "libhello.so.1").exists() for entry in library_path.split(":"))
    assert os.readlink(part / "usr/share/hello/text") == "../../../etc/hello/text"
    assert (part / "usr/lib/udev/x").exists(), "merged into /usr, as the machine's own /lib"
    assert not (part / "usr/bin/hello").stat().st_mode & stat.S_ISUID


def test_an_ordinary_user_can_build(archive: Archive, directory: Path) -> None:
    user = nobody()
    built = build(directory, archive.part(), user=user)
    assert built.status == 0, built.output
    program = directory / "parts/hello/usr/bin/hello"
    assert program.stat().st_uid == user.uid


def test_a_second_build_needs_no_archive(archive: Archive, directory: Path) -> None:
    lock = ["lock = hello.lock"]
    assert build(directory, archive.part(*lock), "buildout:refresh-locks=true").status == 0
    shutil.rmtree(directory / "parts")
    (directory / ".installed.cfg").unlink()
    part = archive.part(*lock).replace("offline = false", "offline = true")
    shutil.rmtree(archive.folder)
    built = build(directory, part)
    assert built.status == 0, built.output
    assert (directory / "parts/hello/wrappers/hello").exists()


def test_the_lock_says_what_is_unpacked(archive: Archive, directory: Path) -> None:
    part = archive.part("lock = hello.lock")
    missing = build(directory, part)
    assert missing.status != 0
    assert "cannot be read" in missing.output or "refresh" in missing.output
    refreshed = build(directory, part, "buildout:refresh-locks=true")
    assert refreshed.status == 0, refreshed.output
    (locked,) = json.loads((directory / "hello.lock").read_text()).values()
    assert sorted(locked) == ["hello", "hello-data"]
    assert locked["hello"]["version"] == "1.0"
    assert build(directory, part).status == 0


def test_a_lock_that_does_not_hold_is_told(archive: Archive, directory: Path) -> None:
    part = archive.part("lock = hello.lock")
    build(directory, part, "buildout:refresh-locks=true")
    shutil.rmtree(directory / "cache")
    archive.publish("hello-data", "2.0", {"usr/share/doc/x": "two"})
    (directory / "parts/hello/.buildout-shared.json").unlink()
    built = build(directory, part)
    assert built.status != 0
    assert "hello-data 1.0 is not offered any more; the sources have 2.0" in built.output
    assert "refresh-locks=true" in built.output


def test_a_file_that_is_not_the_locked_one_is_refused(archive: Archive, directory: Path) -> None:
    part = archive.part("lock = hello.lock")
    build(directory, part, "buildout:refresh-locks=true")
    lock = json.loads((directory / "hello.lock").read_text())
    (packages,) = lock.values()
    packages["hello"]["sha256"] = "0" * 64
    (directory / "hello.lock").write_text(json.dumps(lock))
    built = build(directory, part)
    assert built.status != 0
    assert "hello 1.0 is locked with sha256 000" in built.output


def test_an_unknown_package_is_told(archive: Archive, directory: Path) -> None:
    built = build(directory, archive.part().replace("packages = hello", "packages = hallo"))
    assert built.status != 0
    assert "apt knows no package hallo" in built.output
    assert "Traceback" not in built.output


def test_excluded_packages_stay_out(archive: Archive, directory: Path) -> None:
    assert build(directory, archive.part("exclude = hello-data")).status == 0
    assert not list((directory / "parts/hello").rglob("libhello*"))


def test_a_shared_part_is_built_once_read_only_and_named_by_its_versions(
    archive: Archive, directory: Path
) -> None:
    part = archive.part("shared = true")
    assert build(directory, part).status == 0
    (first,) = (directory / "shared/hello").glob("[0-9a-f]*")
    assert not first.stat().st_mode & stat.S_IWUSR
    assert run_hello(first / "wrappers/hello").output.endswith("good morning")
    built_at = (first / ".buildout-shared.json").stat().st_mtime_ns
    assert build(directory, part).status == 0
    assert (first / ".buildout-shared.json").stat().st_mtime_ns == built_at
    # A newer package goes elsewhere: what others use stays as it is.
    archive.publish("hello-data", "2.0", {"usr/share/doc/x": "two"})
    for own_list in (directory / "cache/debian/apt").glob("updated"):
        os.utime(own_list, (0, 0))
    assert build(directory, part).status == 0
    assert len(list((directory / "shared/hello").glob("[0-9a-f]*"))) == 2


def test_a_build_killed_half_way_is_done_again(archive: Archive, directory: Path) -> None:
    part = archive.part("shared = true")
    assert build(directory, part).status == 0
    (location,) = (directory / "shared/hello").glob("[0-9a-f]*")
    for folder in (location, location / "usr", location / "usr/bin"):
        folder.chmod(0o755)
    (location / ".buildout-shared.json").unlink()
    (location / "usr/bin/hello").unlink()
    assert build(directory, part).status == 0
    assert (location / "usr/bin/hello").exists()


def test_a_machine_without_apt_is_told(archive: Archive, directory: Path) -> None:
    built = build(directory, archive.part(), variables={"PATH": str(directory)})
    assert built.status != 0
    assert "there is no dpkg on this machine" in built.output


def test_unreachable_sources_are_told(archive: Archive, directory: Path) -> None:
    part = archive.part()
    (archive.folder / "sources.list").write_text("deb [trusted=yes] http://127.0.0.1:9/ ./\n")
    built = build(directory, part)
    assert built.status != 0
    assert "127.0.0.1:9" in built.output
    assert "/etc/apt" in built.output


@pytest.mark.e2e
@pytest.mark.parametrize("ordinary_user", [False, True])
def test_a_package_of_the_distribution_works(directory: Path, ordinary_user: bool) -> None:
    user = nobody() if ordinary_user else None
    part = "parts = jq\n[jq]\nrecipe = slapos:debian\noffline = false\npackages = jq\n"
    built = build(directory, part, user=user)
    if "package lists cannot be fetched" in built.output:
        pytest.skip(f"the sources of apt cannot be reached: {built.output[-300:]}")
    assert built.status == 0, built.output
    ran = SystemRunner().run(
        [str(directory / "parts/jq/wrappers/jq"), "-n", "1+2"],
        cwd=directory,
        environment={"PATH": os.environ["PATH"]},
    )
    assert ran.output == "3"
