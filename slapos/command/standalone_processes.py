"""The processes of a standalone: its two supervisords, what they run, and what was left over."""

import http.client
import signal
import xmlrpc.client
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
from supervisor.xmlrpc import SupervisorTransport

from slapos.protocol.errors import SlapOSError
from slapos.system.clock import Clock

#: Seconds between two looks while waiting.
POLL = 0.05
#: Seconds that a supervisord gets to stop all that it runs: a service gets 60.
SHUTDOWN_TIME = 90.0
#: Seconds that a process gets to end by itself, and then to be gone.
TERM_TIME, KILL_TIME = 15.0, 5.0


class NotStopped(SlapOSError):
    """Processes are still there after everything was tried."""

    code = "not_stopped"


@dataclass(frozen=True, kw_only=True)
class SupervisedProcess:
    """A process as supervisord sees it."""

    name: str
    state: str
    pid: int
    description: str


class SupervisorSocket:
    """A supervisord, reached through its unix socket."""

    def __init__(self, path: Path) -> None:
        self._url = f"unix://{path}"

    def pid(self) -> int | None:
        """Return its process id, None when nobody answers."""
        return cast("int | None", self._ask("getPID"))

    def processes(self) -> list[SupervisedProcess]:
        """Return what it runs; nothing when nobody answers."""
        return [
            SupervisedProcess(
                name=(
                    item["name"]
                    if item["name"] == item["group"]
                    else f"{item['group']}:{item['name']}"
                ),
                state=item["statename"],
                pid=item["pid"],
                description=item["description"],
            )
            for item in cast("list[dict[str, Any]]", self._ask("getAllProcessInfo") or [])
        ]

    def start(self, name: str) -> None:
        """Have a program running."""
        self._ask("startProcess", name, False)

    def stop(self, name: str) -> None:
        """Have a program ended, and wait for that."""
        self._ask("stopProcess", name, True)

    def shutdown(self) -> None:
        """Have it end, and all that it runs."""
        self._ask("shutdown")

    def _ask(self, call: str, *arguments: Any) -> Any:
        # A new one for each call: after a failure, supervisor's transport never works again.
        transport = SupervisorTransport(None, None, self._url)
        server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(server.supervisor, call)(*arguments)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return None
        finally:
            transport.close()


def end_all(
    sockets: Iterable[Path],
    pid_files: Iterable[Path],
    directory: Path,
    clock: Clock,
    *,
    services: bool = True,
) -> int:
    """End each supervisord, then what the pid files name, then `services` that are left.

    Returns how many processes had to be ended one by one. Raises NotStopped when one remains.
    """
    named = [process for file in pid_files for process in _named_in(file, directory)]
    for path in sockets:
        supervisor = SupervisorSocket(path)
        processes = _of(supervisor.pid())
        supervisor.shutdown()
        _wait_until_gone(processes, clock)
    left = _left(named, directory, services)
    _end(left, clock)
    remaining = _left(named, directory, services)
    if remaining:
        names = ", ".join(f"{process.pid} ({_name(process)})" for process in remaining)
        raise NotStopped(f"these processes do not end: {names}; end them with `kill -9`")
    return len(left)


def _left(named: list[psutil.Process], directory: Path, services: bool) -> list[psutil.Process]:
    found = [*named, *(at_work(directory) if services else ())]
    return list(dict.fromkeys(filter(_alive, found)))


def at_work(directory: Path) -> list[psutil.Process]:
    """Return the processes that work in the partitions or releases of a standalone.

    One with a terminal is a person's, who looks around there.
    """
    places = (directory / "inst", directory / "soft")
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            folder = Path(process.cwd())
            if any(folder.is_relative_to(place) for place in places) and not process.terminal():
                found.append(process)
    return found


def _named_in(file: Path, directory: Path) -> list[psutil.Process]:
    """Return the process that a file names, unless it has nothing to do with `directory`."""
    with suppress(OSError, ValueError, psutil.Error):
        process = psutil.Process(int(file.read_text()))
        if any(str(directory) in word for word in process.cmdline()):
            return [process]
    return []


def _of(pid: int | None) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [] if pid is None else [psutil.Process(pid)]
    return []


def _end(processes: list[psutil.Process], clock: Clock) -> None:
    for number, patience in ((signal.SIGTERM, TERM_TIME), (signal.SIGKILL, KILL_TIME)):
        for process in processes:
            with suppress(psutil.Error):
                process.send_signal(number)
        _wait_until_gone(processes, clock, patience)


def _wait_until_gone(
    processes: list[psutil.Process], clock: Clock, patience: float = SHUTDOWN_TIME
) -> None:
    deadline = clock.monotonic() + patience
    while any(_alive(process) for process in processes) and clock.monotonic() < deadline:
        clock.sleep(POLL)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:60]
    except psutil.Error:
        return "?"
