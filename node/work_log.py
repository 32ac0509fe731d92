"""The log file of one release or partition: what was done, and all that its buildout printed."""

import logging
import os
from contextlib import suppress
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from types import TracebackType

from slapos.node.beneath import UnsafePath, open_file, open_folder
from slapos.system.clock import Clock

#: Bytes after which a log is put aside as `.1`.
LARGEST = 20 * 1024 * 1024
#: Lines of a failed program's output that the message of its failure repeats.
REPEATED_LINES = 20


class WorkLog:
    """Appends lines to `<folder>/.slapgrid/log/<name>`; a context manager."""

    def __init__(
        self, folder: Path, name: str, clock: Clock, owner: tuple[int, int] | None = None
    ) -> None:
        self.path = folder / ".slapgrid" / "log" / name
        self._clock = clock
        uid_gid = owner or (os.geteuid(), os.getegid())
        logs = open_folder(folder, ".slapgrid/log", owner=uid_gid)
        try:
            self._stream = os.fdopen(_open_rotated(logs, name, uid_gid), "ab", buffering=0)
        finally:
            os.close(logs)

    def __enter__(self) -> "WorkLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def write(self, line: str, level: str = "INFO") -> None:
        """Append a line, at once; on a full disk it is lost, and the work goes on."""
        with suppress(OSError):
            text = f"{_shown(self._clock.now())} {level} {line}\n"
            self._stream.write(text.encode(errors="backslashreplace"))


def _open_rotated(logs: int, name: str, owner: tuple[int, int]) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    descriptor = open_file(logs, name, flags)
    if os.fstat(descriptor).st_size >= LARGEST:
        os.close(descriptor)
        os.rename(name, f"{name}.1", src_dir_fd=logs, dst_dir_fd=logs)
        descriptor = open_file(logs, name, flags)
    status = os.fstat(descriptor)
    if os.geteuid() == 0 and (status.st_uid, status.st_gid) != owner:
        if status.st_nlink > 1:  # a second name for a file of somebody else
            os.close(descriptor)
            raise UnsafePath(f"the log {name!r} has several names and another owner; remove it")
        os.fchown(descriptor, *owner)
    return descriptor


def _shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def is_shown(level: int) -> bool:
    """Return whether whoever follows the log of this program sees what is told at a level."""
    root = logging.getLogger()
    return root.isEnabledFor(level) and all(handler.level <= level for handler in root.handlers)


def last_lines(output: str) -> str:
    """Return the end of a program's output, as much as a message may repeat."""
    return "\n".join(output.strip().splitlines()[-REPEATED_LINES:])


def telling_line(output: str) -> str:
    """Return what says most of a failed program's output: an error, or the last line.

    Indented lines after an error belong to it.
    """
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if "Error: " in f"{line} "]
    if not errors:
        return lines[-1].strip() if lines else ""
    first = errors[-1]
    more = takewhile(lambda line: line[0].isspace(), lines[first + 1 :])
    return " ".join([lines[first].strip(), *(line.strip() for line in more)])
