"""What the machine shows of a process: its command line and environment (/proc, `ps`; Linux).

The kernel shows the memory in which it put them when the program was started. A process that is a
fork, and does the work of another program, writes there what that program would have.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from slapos.protocol.errors import SlapOSError

#: Of what stands after the name in /proc/PID/stat: where arguments and environment begin and end.
PLACES = slice(45, 49)


class NoImage(SlapOSError):
    """What is shown of this process cannot be changed, or not to this."""

    code = "no_process_image"


class ProcessImage:
    """The two pieces of memory of this process; a fork of it has them in the same place."""

    def __init__(self) -> None:
        numbers = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end, environment_start, environment_end = map(int, numbers[PLACES])
        self._arguments = _Piece(start, end, "cmdline")
        self._environment = _Piece(environment_start, environment_end, "environ")

    def show(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Show these. Nobody may still use the environment that this process was started with.

        Raises NoImage when there is no room for it.
        """
        self.show_arguments(argv)
        self._environment.write(shown_environment(environment))

    def show_arguments(self, argv: Sequence[str]) -> None:
        """Show these arguments. Raises NoImage."""
        self._arguments.write(shown_arguments(argv))


def shown_arguments(argv: Sequence[str]) -> bytes:
    """Return arguments as they are in memory."""
    return b"".join(os.fsencode(word) + b"\0" for word in argv)


def shown_environment(environment: Mapping[str, str]) -> bytes:
    """Return an environment as it is in memory."""
    return shown_arguments([f"{name}={value}" for name, value in environment.items()])


class _Piece:
    def __init__(self, start: int, end: int, name: str) -> None:
        self._start = start
        self.size = end - start
        # Only where the kernel says that this is the place, and the place holds what it shows.
        shown = Path(f"/proc/self/{name}").read_bytes()
        if not start or self.size <= 0 or ctypes.string_at(start, self.size) != shown:
            raise NoImage(f"the kernel does not say where it has what is in /proc/self/{name}")

    def write(self, content: bytes) -> None:
        if len(content) > self.size:
            raise NoImage(f"{len(content)} bytes are too many for the {self.size} that there are")
        ctypes.memmove(self._start, content.ljust(self.size, b"\0"), self.size)
