"""Which promises a partition has: plugins in `etc/plugin`, executables in `etc/promise`."""

import os
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

PLUGIN_FOLDER = Path("etc/plugin")
EXECUTABLE_FOLDER = Path("etc/promise")


@dataclass(frozen=True)
class PromiseFile:
    """A promise on disk; `title` is what its results and logs are called."""

    title: str
    path: Path
    is_plugin: bool

    @property
    def name(self) -> str:
        """The file name."""
        return self.path.name


@dataclass(frozen=True)
class Promises:
    """The promises of a partition, and the files in their folders that cannot be run."""

    files: tuple[PromiseFile, ...]
    not_executable: tuple[Path, ...] = ()


def find_promises(partition_directory: Path) -> Promises:
    """Return the promises of a partition, plugins first, each folder in the order of its names.

    A title is the file name without its extension; where that is taken already, the whole file
    name, and where that is taken too, the file name with a number.
    """
    found: dict[str, PromiseFile] = {}
    others = []
    for path in _files(partition_directory / PLUGIN_FOLDER):
        if path.suffix == ".py" and path.stem != "__init__":
            title = _free_title(path, found)
            found[title] = PromiseFile(title, path, is_plugin=True)
    for path in _files(partition_directory / EXECUTABLE_FOLDER):
        if os.access(path, os.X_OK):
            title = _free_title(path, found)
            found[title] = PromiseFile(title, path, is_plugin=False)
        else:
            others.append(path)
    return Promises(tuple(found.values()), tuple(others))


def promises_version(partition_directory: Path) -> str:
    """Return a text that changes when a promise is added, replaced or removed.

    It costs two looks at the disk. A promise written over in place does not change it: that is
    seen when its turn comes.
    """
    return " ".join(
        _version(partition_directory / folder) for folder in (PLUGIN_FOLDER, EXECUTABLE_FOLDER)
    )


def _version(folder: Path) -> str:
    try:
        status = os.stat(folder)
    except OSError:
        return "-"
    return f"{status.st_ino}.{status.st_mtime_ns}"


def _free_title(path: Path, taken: Container[str]) -> str:
    if path.stem not in taken:
        return path.stem
    title, number = path.name, 1
    while title in taken:
        number += 1
        title = f"{path.name}-{number}"
    return title


def _files(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if _is_promise(entry))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in names]


def _is_promise(entry: os.DirEntry[str]) -> bool:
    try:
        return not entry.name.startswith(".") and entry.is_file()
    except OSError:  # a link that leads in a circle
        return False
