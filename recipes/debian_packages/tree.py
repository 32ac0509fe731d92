"""Package files unpacked into a folder without root, and made to work from there."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from slapos.system.files import write_if_changed

#: Debian's architecture → the folder of its libraries.
MULTIARCH = {
    "amd64": "x86_64-linux-gnu",
    "arm64": "aarch64-linux-gnu",
    "armhf": "arm-linux-gnueabihf",
    "i386": "i386-linux-gnu",
    "ppc64el": "powerpc64le-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
    "s390x": "s390x-linux-gnu",
}
PROGRAM_FOLDERS = ("usr/sbin", "usr/bin", "usr/games", "sbin", "bin")
MACHINE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHARED_LIBRARY = re.compile(r"^lib.*\.so(\.[\w.]+)?$")
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


class Tree:
    """A folder that package files were unpacked into.

    `library_path` and `environment` are known before anything is unpacked, so that other parts may
    refer to them: libraries in folders of their own are reached through links in `libraries`.
    """

    def __init__(self, root: Path, architecture: str) -> None:
        self.root = root
        triplet = MULTIARCH.get(architecture, architecture)
        folders = (f"usr/lib/{triplet}", f"lib/{triplet}", "usr/lib", "lib", "libraries")
        self.library_folders = [root / folder for folder in folders]
        self.wrappers = root / "wrappers"
        perl = (f"usr/lib/{triplet}/perl5", "usr/share/perl5")
        self._variables = {
            "LD_LIBRARY_PATH": self.library_folders,
            "PERL5LIB": [root / folder for folder in perl],
            "PYTHONPATH": [root / "usr/lib/python3/dist-packages"],
            "PATH": [
                *(root / folder for folder in PROGRAM_FOLDERS),
                *map(Path, MACHINE_PATH.split(":")),
            ],
        }

    @property
    def library_path(self) -> str:
        """Return what LD_LIBRARY_PATH should hold."""
        return _joined(self.library_folders)

    @property
    def environment(self) -> str:
        """Return `NAME=value` lines under which the programs of the tree work."""
        return "\n".join(f"{name}={_joined(value)}" for name, value in self._variables.items())

    def finish(self) -> None:
        """Make the unpacked files work from where they are."""
        if Path("/usr/bin").samefile("/bin"):
            for name in MERGED:
                _merge(self.root, name)
        for path in list(_walk(self.root)):
            if path.is_symlink():
                _keep_inside(self.root, path)
            else:
                path.chmod(path.stat().st_mode & 0o777)
        self._link_libraries()
        self._write_wrappers()

    def programs(self) -> dict[str, Path]:
        """Return the programs of the tree by their names."""
        found: dict[str, Path] = {}
        for folder in reversed(PROGRAM_FOLDERS):
            for path in sorted((self.root / folder).glob("*")):
                if path.is_file() and os.access(path, os.X_OK):
                    found[path.name] = path
        return found

    def _link_libraries(self) -> None:
        """Link from `libraries` to shared libraries in folders that the loader does not look at."""
        links = self.root / "libraries"
        links.mkdir()
        known = {folder.resolve() for folder in self.library_folders}
        for path in sorted([*_walk(self.root / "usr/lib"), *_walk(self.root / "lib")]):
            link = links / path.name
            if (
                SHARED_LIBRARY.match(path.name)
                and path.is_file()
                and path.parent.resolve() not in known
                # The loader knows these folders itself, and which of them fits the processor.
                and "glibc-hwcaps" not in path.parts
                and not link.is_symlink()
            ):
                link.symlink_to(os.path.relpath(path, links))

    def _write_wrappers(self) -> None:
        self.wrappers.mkdir()
        for name, path in self.programs().items():
            settings = [
                f"{variable}={shlex.quote(value)}${{{variable}:+:${variable}}}"
                for variable, value in self._prepended()
            ]
            script = ["#!/bin/sh", *settings, f"export {' '.join(v for v, _ in self._prepended())}"]
            script.append(f'exec {shlex.quote(str(path))} "$@"')
            write_if_changed(self.wrappers / name, "\n".join(script) + "\n", mode=0o755)

    def _prepended(self) -> list[tuple[str, str]]:
        """Return the variables with those of their folders that are in the tree."""
        present = {
            name: [p for p in folders if p.is_dir() and p.is_relative_to(self.root)]
            for name, folders in self._variables.items()
        }
        return [(name, _joined(folders)) for name, folders in present.items() if folders]


def _joined(folders: list[Path]) -> str:
    return ":".join(str(folder) for folder in folders)


def _walk(root: Path) -> Iterator[Path]:
    """Give all that is below a folder, without following links."""
    if root.is_dir() and not root.is_symlink():
        for entry in list(os.scandir(root)):
            yield Path(entry.path)
            yield from _walk(Path(entry.path))


def _merge(root: Path, name: str) -> None:
    """Move `/lib` and the like into `/usr`, as on the machine, where they are links."""
    folder = root / name
    if not folder.is_dir() or folder.is_symlink():
        return
    for path in list(_walk(folder)):
        target = root / "usr" / name / path.relative_to(folder)
        if path.is_dir() and not path.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
        elif not target.is_symlink() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    shutil.rmtree(folder)
    folder.symlink_to(f"usr/{name}")


def _keep_inside(root: Path, link: Path) -> None:
    """Point an absolute link to the file of the tree that it means, if there is one."""
    target = os.readlink(link)
    if target.startswith("/"):
        inside = root / target.lstrip("/")
        if os.path.lexists(inside):
            link.unlink()
            link.symlink_to(os.path.relpath(inside, link.parent))
