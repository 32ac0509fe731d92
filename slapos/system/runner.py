"""The one door to other programs."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from slapos.protocol.errors import SlapOSError

#: Lines kept of a program's output, the last ones, for the message of its failure.
KEPT_OUTPUT = 200_000
#: A longer line is cut in pieces, in bytes: a program must not fill our memory.
LONGEST_LINE = 1_000_000


class CommandFailed(SlapOSError):
    """A program ended badly, or could not be started."""

    code = "command_failed"

    def __init__(self, message: str, *, status: int | None = None, output: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.output = output


class CommandTimedOut(CommandFailed):
    """A program took longer than it was given, and was ended with all that it had started."""

    code = "command_timed_out"


@dataclass(frozen=True)
class User:
    """Whom a program runs as: numeric ids, so that no look-up happens on the way."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Result:
    """What a program left: its exit status, and the end of what it printed (stdout and stderr)."""

    status: int
    output: str


class Runner(Protocol):
    """What can run a program."""

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        timeout: float | None = None,
        user: User | None = None,
        on_line: Callable[[str], None] | None = None,
        check: bool = True,
    ) -> Result:
        """Run it to its end."""
        ...


class SystemRunner:
    """Runs programs on this machine, each in a session of its own, to be ended as a whole."""

    def __init__(self, patience: float = 5.0) -> None:
        """`patience`: seconds between asking a program to end and ending it."""
        self._patience = patience

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        timeout: float | None = None,
        user: User | None = None,
        on_line: Callable[[str], None] | None = None,
        check: bool = True,
    ) -> Result:
        """Run `argv` to its end and return its status and output.

        `timeout` is in seconds, None for no limit. `user` needs root. `on_line` is called with each
        line as it comes. With `check`, a status other than 0 raises CommandFailed.
        Raises CommandTimedOut when time is up, CommandFailed when it cannot be started.
        """
        process = _start(argv, cwd, environment, user)
        lines = _Output(on_line)
        reader = threading.Thread(target=lines.read, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            _end_session(process, self._patience)
            reader.join(5)
            raise CommandTimedOut(
                f"{argv[0]} did not end within {timeout:g} s and was ended", output=lines.text()
            ) from None
        except BaseException:
            _end_session(process, self._patience)
            raise
        # A grandchild may hold the pipe open for ever: what matters is that the program has ended.
        reader.join(2)
        output = lines.text()
        if check and status:
            raise CommandFailed(
                f"{argv[0]} ended with status {status}", status=status, output=output
            )
        return Result(status, output)


class _Output:
    """Collects the last part of what a program prints, and passes on each line."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._lines: list[str] = []
        self._size = 0

    def read(self, stream: IO[bytes]) -> None:
        """Read to the end of the stream."""
        with stream:
            while raw := stream.readline(LONGEST_LINE):
                line = raw.decode("utf-8", "replace").rstrip("\n")
                self._keep(line)
                if self._on_line is not None:
                    self._on_line(line)

    def _keep(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line)
        while self._size > KEPT_OUTPUT and len(self._lines) > 1:
            self._size -= len(self._lines.pop(0))

    def text(self) -> str:
        """Return what was kept."""
        return "\n".join(self._lines)


def _start(
    argv: Sequence[str], cwd: Path, environment: Mapping[str, str], user: User | None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            umask=0o027 if user is not None else -1,
            user=None if user is None else user.uid,
            group=None if user is None else user.gid,
            extra_groups=None if user is None else list(user.groups),
            start_new_session=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CommandFailed(f"{argv[0]} could not be started in {cwd}: {error}") from error


def _end_session(process: subprocess.Popen[bytes], patience: float) -> None:
    """End the program and what it started: politely first, then for good."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    # Also when the program itself has ended: what it started may still be there.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
