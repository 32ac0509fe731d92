"""The one door to other programs."""

import os
import resource
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from slapos.protocol.errors import SlapOSError

#: Characters kept of a program's output, the last ones, for the message of its failure.
KEPT_OUTPUT = 200_000
#: A longer line is cut in pieces, in bytes: a program must not fill our memory.
LONGEST_LINE = 1_000_000
#: Of a program that runs as another user.
UMASK = 0o027

#: What a program with limits is started through. It waits, as the program's user, until it is in
#: its cgroups, where only we can put it; where we end before, it ends too and runs nothing.
#: `ulimit -u` is the number of processes, which some shells call `-p`.
HELD = """\
read -r _ || exit
if [ -n "$1" ]; then ulimit -n "$1" || exit; fi
if [ -n "$2" ]; then ulimit -u "$2" 2>/dev/null || ulimit -p "$2" || exit; fi
shift 2
exec "$@" </dev/null
"""
#: How that shell names itself when it cannot start the program.
HELD_NAME = "slapos-start"
NOT_STARTED = (126, 127)


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


@dataclass(frozen=True, kw_only=True)
class ProcessLimits:
    """What a program may use, with all that it starts; it is bound before its first instruction.

    `cgroup_procs` are the files that its process id is written to, `open_files` and `processes` (of
    its user, all together) become its RLIMIT_NOFILE and RLIMIT_NPROC, None leaves them as they are.
    """

    cgroup_procs: tuple[Path, ...] = ()
    open_files: int | None = None
    processes: int | None = None

    def enter(self, pid: int) -> None:
        """Put a process into the cgroups. Raises OSError."""
        for path in self.cgroup_procs:
            path.write_text(f"{pid}\n")

    def held(self, argv: Sequence[str]) -> list[str]:
        """Return what waits for a line on its input and then becomes the program `argv`."""
        numbers = [
            "" if limit is None else str(_possible(kind, limit))
            for kind, limit in (
                (resource.RLIMIT_NOFILE, self.open_files),
                (resource.RLIMIT_NPROC, self.processes),
            )
        ]
        return ["/bin/sh", "-c", HELD, HELD_NAME, *numbers, *argv]

    def bind(self, pid: int) -> None:
        """Bind a process, 0 for this one. Raises OSError.

        The resource limits of another user's process need more than being root, in a container.
        """
        self.enter(pid)
        _bind_resource(pid, resource.RLIMIT_NOFILE, self.open_files)
        _bind_resource(pid, resource.RLIMIT_NPROC, self.processes)


def _bind_resource(pid: int, kind: int, limit: int | None) -> None:
    """Set one resource limit of a process, soft and hard; None leaves it. Raises OSError."""
    if limit is not None:
        most = _possible(kind, limit)
        resource.prlimit(pid, kind, (most, most))


def _possible(kind: int, limit: int) -> int:
    """Return the limit, or our own where that is less: what not even root may always raise."""
    hard = resource.getrlimit(kind)[1]
    return limit if hard == resource.RLIM_INFINITY else min(limit, hard)


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
        limits: ProcessLimits | None = None,
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
        limits: ProcessLimits | None = None,
    ) -> Result:
        """Run `argv` to its end and return its status and output.

        `timeout` is in seconds, None for no limit. `user` needs root. `on_line` is called with each
        line as it comes. With `check`, a status other than 0 raises CommandFailed.
        Raises CommandTimedOut when time is up, CommandFailed when it cannot be started or its
        limits cannot be set.
        """
        return follow(
            _Started(argv, cwd, environment, user, limits),
            argv[0],
            timeout=timeout,
            patience=self._patience,
            on_line=on_line,
            check=check,
        )


class Running(Protocol):
    """A program that was started, in a session of its own."""

    @property
    def output(self) -> IO[bytes]:
        """What it prints, stdout and stderr."""
        ...

    def begin(self) -> None:
        """Let it go. Raises CommandFailed when its limits cannot be set."""
        ...

    def wait(self, timeout: float | None) -> int:
        """Return its exit status. Raises TimeoutError when time is up first."""
        ...

    def end(self, patience: float) -> None:
        """End it and what it started: politely first, then for good."""
        ...

    def check_started(self, status: int, output: str) -> None:
        """See that what has ended was the program itself. Raises CommandFailed."""
        ...


def follow(
    running: Running,
    name: str,
    *,
    timeout: float | None,
    patience: float,
    on_line: Callable[[str], None] | None,
    check: bool,
) -> Result:
    """Do what `SystemRunner.run` does once a program is started; `name` is for errors."""
    lines = _Output(on_line)
    reader = threading.Thread(target=lines.read, args=(running.output,), daemon=True)
    reader.start()
    try:
        running.begin()
        status = running.wait(timeout)
    except TimeoutError:
        running.end(patience)
        reader.join(5)
        raise CommandTimedOut(
            f"{name} did not end within {timeout:g} s and was ended", output=lines.text()
        ) from None
    except BaseException:
        running.end(patience)
        raise
    # A grandchild may hold the pipe open for ever: what matters is that the program has ended.
    reader.join(2)
    output = lines.text()
    running.check_started(status, output)
    if check and status:
        raise CommandFailed(f"{name} ended with status {status}", status=status, output=output)
    return Result(status, output)


class _Output:
    """Collects the last part of what a program prints, and passes on each line."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._lines: deque[str] = deque()
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
        self._size += len(line) + 1
        while self._size > KEPT_OUTPUT and len(self._lines) > 1:
            self._size -= len(self._lines.popleft()) + 1

    def text(self) -> str:
        """Return what was kept."""
        return "\n".join(self._lines)


class _Started:
    """A program as a process of its own; one with limits waits for them in a shell."""

    def __init__(
        self,
        argv: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        user: User | None,
        limits: ProcessLimits | None,
    ) -> None:
        self._name = argv[0]
        self._cwd = cwd
        self._limits = limits = None if limits == ProcessLimits() else limits
        try:
            self._process = subprocess.Popen(
                list(argv) if limits is None else limits.held(argv),
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL if limits is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                umask=UMASK if user is not None else -1,
                user=None if user is None else user.uid,
                group=None if user is None else user.gid,
                extra_groups=None if user is None else list(user.groups),
                start_new_session=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise CommandFailed(f"{argv[0]} could not be started in {cwd}: {error}") from error

    @property
    def output(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def begin(self) -> None:
        if self._limits is None:
            return
        assert self._process.stdin is not None
        # Not in the child between fork and exec: where there are threads, no Python may run there.
        # A shell that is already gone says why by its status.
        with suppress(BrokenPipeError), self._process.stdin as gate:
            try:
                self._limits.enter(self._process.pid)
            except OSError as error:
                raise CommandFailed(
                    f"the limits of {self._name} could not be set: {error}"
                ) from error
            gate.write(b"\n")

    def wait(self, timeout: float | None) -> int:
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error

    def end(self, patience: float) -> None:
        process = self._process
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        # Also when the program itself has ended: what it started may still be there.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def check_started(self, status: int, output: str) -> None:
        is_shells = self._limits is not None and status in NOT_STARTED
        if is_shells and output.startswith(f"{HELD_NAME}: "):
            raise CommandFailed(f"{self._name} could not be started in {self._cwd}: {output}")
