"""Showing logs: the ends of files in partitions and releases, and what is added to them.

Their folders belong to users whom root does not trust: links are not followed.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from slapos.command.client_settings import ClientSettings
from slapos.node.beneath import UnsafePath, open_file, open_folder
from slapos.node.layout import release_digest
from slapos.system.clock import Clock

#: Seconds between two looks at the files that are followed.
PAUSE = 0.3
#: So many such looks between two that look for new files, too.
LOOKS = 4
#: Bytes read from the end of a file for each line that is wanted.
BYTES_PER_LINE = 500
#: Where a release's build is logged, below its folder, and an instance's below its partition.
BUILD_LOG = ".slapgrid/log/build.log"
INSTANCE_LOG = ".slapgrid/log/instance.log"


@dataclass(frozen=True)
class Log:
    """The log `relative` below `folder`, which nobody but the node can replace; `title` is whose
    it is.
    """

    title: str
    folder: Path
    relative: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.folder / self.relative

    def open(self, suffix: str = "") -> BinaryIO:
        """Open it, or with a suffix the file it was rotated to. Raises OSError, UnsafePath."""
        relative = Path(self.relative + suffix)
        parent = open_folder(self.folder, str(relative.parent))
        try:
            return os.fdopen(open_file(parent, relative.name, os.O_RDONLY), "rb")
        finally:
            os.close(parent)

    def is_readable(self) -> bool:
        """Return whether there is such a plain file, which we may read."""
        try:
            self.open().close()
        except (OSError, UnsafePath):
            return False
        return True


def release_logs(title: str, folder: Path) -> list[Log]:
    """Return the log of a release's build, if there is one."""
    log = Log(title, folder, BUILD_LOG)
    return [log] if log.is_readable() else []


def partition_logs(title: str, folder: Path) -> list[Log]:
    """Return the logs that there are of a partition: its instantiation's, then its processes'."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    begin = f".{folder.name}_"
    printed = [name for name in names if name.startswith(begin) and name.endswith(".log")]
    logs = [Log(title, folder, relative) for relative in (INSTANCE_LOG, *printed)]
    return [log for log in logs if log.is_readable()]


def instance_logs(
    settings: ClientSettings, title: str, node: str | None, partition: str | None, release: str
) -> list[Log]:
    """Return the logs of an instance on this machine: its release's build, then its own."""
    found: list[Log] = []
    if settings.software_root is not None and node == settings.node:
        found += release_logs(title, settings.software_root / release_digest(release))
    directory = settings.partition_directory(node, partition)
    if directory is not None:
        found += partition_logs(title, directory)
    return found


def show_json(logs: Sequence[Log], lines: int, key: str) -> None:
    """Print the ends of the logs as JSON; `key` is what a title is called."""
    shown = [
        {key: log.title, "file": str(log.path), "lines": last_lines(log, lines)} for log in logs
    ]
    print(json.dumps(shown, indent=2))


def show(logs: Sequence[Log], lines: int) -> None:
    """Print the ends of the logs, each under its name."""
    for log in logs:
        print(_heading(log))
        print("".join(f"{line}\n" for line in last_lines(log, lines)), flush=True)


def follow(
    find: Callable[[], Sequence[Log]], tails: dict[Log, "LogTail"], clock: Clock, *, shown: str
) -> None:
    """Print what is added to the logs, also to those that come into being, for ever.

    `tails` has those that were shown, `shown` is the heading that was printed last.
    """
    look = 0
    while True:
        look += 1
        if look % LOOKS == 0:
            for log in find():
                tails.setdefault(log, LogTail(log, from_beginning=True))
        for log, tail in tails.items():
            for line in tail.new_lines():
                if shown != _heading(log):
                    shown = _heading(log)
                    print(f"\n{shown}")
                print(line, flush=True)
        clock.sleep(PAUSE)


def show_and_follow(find: Callable[[], Sequence[Log]], lines: int, clock: Clock) -> None:
    """Print the ends of the logs, and then what is added to them, for ever."""
    logs = find()
    tails = {log: LogTail(log) for log in logs}
    show(logs, lines)
    follow(find, tails, clock, shown=_heading(logs[-1]) if logs else "")


def _heading(log: Log) -> str:
    return f"==> {log.title}: {log.path} <=="


def last_lines(log: Log, count: int) -> list[str]:
    """Return the last lines of a file, without reading a large one whole."""
    try:
        with log.open() as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - max(count, 1) * BYTES_PER_LINE))
            text = stream.read().decode("utf-8", "replace")
    except (OSError, UnsafePath):  # rotated or removed just now
        return []
    return text.splitlines()[-count:] if count > 0 else []


class LogTail:
    """What is added to a log from now on, also when it is rotated or emptied meanwhile."""

    def __init__(self, log: Log, *, from_beginning: bool = False) -> None:
        self._log = log
        self._position = self._inode = 0
        self._rest = b""
        with suppress(OSError, UnsafePath), log.open() as stream:
            status = os.fstat(stream.fileno())
            self._inode = status.st_ino
            self._position = 0 if from_beginning else status.st_size

    def new_lines(self) -> Iterator[str]:
        """Yield the whole lines that came since the last call."""
        added = b""
        try:
            with self._log.open() as stream:
                status = os.fstat(stream.fileno())
                if status.st_ino != self._inode:
                    added = self._end_of_rotated()
                    self._position, self._inode = 0, status.st_ino
                elif status.st_size < self._position:
                    self._position = 0
                stream.seek(self._position)
                new = stream.read()
        except (OSError, UnsafePath):  # between two files of a rotation, or removed
            return
        self._position += len(new)
        *lines, self._rest = (self._rest + added + new).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in lines)

    def _end_of_rotated(self) -> bytes:
        """Return what was added to the file before it was put aside as `.1`."""
        with suppress(OSError, UnsafePath), self._log.open(".1") as stream:
            if os.fstat(stream.fileno()).st_ino == self._inode:
                stream.seek(self._position)
                return stream.read()
        return b""
