"""What a WarmRunner and its warm process say to each other.

Over the main socket, the runner sends one byte with two descriptors: one end of a socket pair for
this run, and where the program's output goes. Everything else is said over that pair, so that what
one run is about never is in the memory of the warm process, from which all others are forked:
the request; then from the fork `started` or `refused`; then from the warm process `ended`.
All sockets keep the boundaries of messages, which are JSON.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slapos.system.runner import ProcessLimits, User

RUN = b"r"
#: Bytes of the largest message: socket buffers have room for several.
LARGEST = 64 * 1024
#: Variables that an interpreter reads when it starts: a fork cannot be given others.
INTERPRETER = ("LANG", "LANGUAGE", "TZ")
INTERPRETER_PREFIXES = ("LC_", "LD_", "PYTHON", "MALLOC_", "GLIBC_")


@dataclass(frozen=True)
class WarmProgram:
    """A program that can be run by calling `main()` of a module, which returns its exit status.

    `script` is the file that does so, when the program is one: its folder is where Python looks for
    modules first. A warm process is not started for the first `cold_first` programs like this one:
    less time is lost by running so many cold.
    """

    module: str
    arguments: tuple[str, ...]
    script: str | None = None
    cold_first: int = 0


@dataclass(frozen=True, kw_only=True)
class WarmRequest:
    """One run; `argv` is what is shown of it."""

    argv: tuple[str, ...]
    program: WarmProgram
    cwd: str
    environment: dict[str, str]
    user: User | None
    limits: ProcessLimits | None = None

    def to_message(self) -> bytes:
        """Return it as it travels."""
        values = asdict(self)
        if self.limits is not None:
            values["limits"]["cgroup_procs"] = [str(path) for path in self.limits.cgroup_procs]
        return to_message(**values)

    @classmethod
    def from_message(cls, message: bytes) -> "WarmRequest":
        """Read what `to_message` wrote."""
        values = json.loads(message)
        program, user, limits = values["program"], values["user"], values["limits"]
        program["arguments"] = tuple(program["arguments"])
        if limits is not None:
            limits["cgroup_procs"] = tuple(map(Path, limits["cgroup_procs"]))
        return cls(
            argv=tuple(values["argv"]),
            program=WarmProgram(**program),
            cwd=values["cwd"],
            environment=values["environment"],
            user=user and User(user["uid"], user["gid"], tuple(user["groups"])),
            limits=limits and ProcessLimits(**limits),
        )


def to_message(**values: Any) -> bytes:
    """Return values as they travel."""
    return json.dumps(values).encode()


def interpreter_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return those variables that an interpreter reads when it starts."""
    return {
        name: value
        for name, value in environment.items()
        if name in INTERPRETER or name.startswith(INTERPRETER_PREFIXES)
    }


def installation(paths: Iterable[str]) -> list[tuple[str, int, int]]:
    """Return what changes when something is installed into one of these folders, or removed."""
    found = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            found.append((path, 0, 0))
        else:
            found.append((path, status.st_ino, status.st_mtime_ns))
    return found
