"""Ending the agent while programs run: they are ended, and nobody takes that for a failure."""

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from slapos.system.clock import Clock
from slapos.system.runner import CommandFailed, ProcessLimits, Result, Runner, User

#: Seconds that programs get to end by themselves, and then to be gone.
PATIENCE, KILL_TIME = 3.0, 2.0
POLL = 0.05


class Interrupted(BaseException):
    """The agent ends: the work is left as it is, as after a `kill -9`, and taken up by the next."""


class Ending:
    """Whether the agent ends, and how its programs do."""

    def __init__(self) -> None:
        self._begun = threading.Event()

    def check(self) -> None:
        """Go no further once the agent ends. Raises Interrupted."""
        if self._begun.is_set():
            raise Interrupted

    def end(self, clock: Clock) -> None:
        """Begin no program any more, and end those that run, with all that they have started.

        supervisord is none of them: it has left this process long ago, with its services.
        """
        self._begun.set()
        found: dict[int, psutil.Process] = {}
        for number, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, KILL_TIME)):
            deadline = clock.monotonic() + patience
            _find_below(found)
            for process in found.values():
                _send(process, number)
            while any(_is_alive(process) for process in found.values()):
                if clock.monotonic() > deadline:
                    break
                clock.sleep(POLL)
                _find_below(found)


class EndableRunner:
    """Runs programs until the agent ends; from then on work stops where it runs the next one."""

    def __init__(self, runner: Runner, ending: Ending) -> None:
        self._runner = runner
        self._ending = ending

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
        """Run a program as its runner does. Raises Interrupted when the agent ends meanwhile."""
        self._ending.check()
        try:
            result = self._runner.run(
                argv,
                cwd=cwd,
                environment=environment,
                timeout=timeout,
                user=user,
                on_line=on_line,
                check=check,
                limits=limits,
            )
        except CommandFailed:
            self._ending.check()
            raise
        if result.status:
            self._ending.check()
        return result


def _find_below(found: dict[int, psutil.Process]) -> None:
    """Add the processes below this one: one whose parent ends gets out of sight."""
    with suppress(psutil.Error):
        for process in psutil.Process().children(recursive=True):
            found.setdefault(process.pid, process)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.Error, OSError):
        if process.is_running():  # its id has not become another's
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
