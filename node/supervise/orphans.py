"""Services that outlived their supervisord, and would keep the ports and locks of their successors.

A supervisord that is killed leaves its processes behind, and no later one can take them over.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from slapos.system.clock import Clock

logger = logging.getLogger(__name__)

#: supervisord gives these to every process that it starts: its own address, and the group's name.
MARK = "SUPERVISOR_SERVER_URL"
GROUP = "SUPERVISOR_GROUP_NAME"
#: Seconds that an orphan gets to end by itself.
PATIENCE = 10.0
POLL = 0.05


def end_orphans(socket: Path, pid_file: Path, clock: Clock) -> list[int]:
    """End what a dead supervisord of this node left running; return the ids of those processes.

    Does nothing while the process named in `pid_file` lives: then it has to be spoken with.
    """
    if _supervisord(pid_file) is not None:
        return []
    return end_marked(MARK, f"unix://{socket}", clock, starter="its supervisord")


def find_orphans(socket: Path, pid_file: Path) -> list[tuple[int, str]]:
    """Return id and command of each process of this node that is older than its supervisord.

    Without a supervisord, that is every process that one of this node has started.
    """
    supervisord = _supervisord(pid_file)
    since = supervisord.create_time() if supervisord is not None else float("inf")
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # another user's, or ended just now
            is_ours = process.environ().get(MARK) == f"unix://{socket}"
            if is_ours and process.create_time() < since:
                found.append((process.pid, " ".join(process.cmdline())[:100]))
    return found


def end_marked(name: str, value: str, clock: Clock, *, starter: str) -> list[int]:
    """End all processes that have `name` = `value` in their environment; return their ids.

    `starter` is what they outlived, for the message.
    """
    return _end(lambda process: process.environ().get(name) == value, clock, starter)


def end_inhabitants(folder: Path, groups: tuple[str, ...], socket: Path, clock: Clock) -> list[int]:
    """End what still runs of a partition: of its groups of services, or in its folder.

    One with a terminal is a person's, who looks around there.
    """
    place = folder.resolve()

    def is_inhabitant(process: psutil.Process) -> bool:
        environment = process.environ()
        if environment.get(MARK) == f"unix://{socket}" and environment.get(GROUP) in groups:
            return True
        return Path(process.cwd()).is_relative_to(place) and not process.terminal()

    return _end(is_inhabitant, clock, "its service")


def _end(is_orphan: Callable[[psutil.Process], bool], clock: Clock, starter: str) -> list[int]:
    orphans = []
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # another user's, or ended just now
            if process.pid not in own and is_orphan(process):
                orphans.append(process)
    for process in orphans:
        logger.warning("process %s outlived %s, it is ended", process.pid, starter)
        _send(process, kill=False)
    deadline = clock.monotonic() + PATIENCE
    while any(_is_alive(process) for process in orphans) and clock.monotonic() < deadline:
        clock.sleep(POLL)
    for process in orphans:
        _send(process, kill=True)
    return [process.pid for process in orphans]


def _supervisord(pid_file: Path) -> psutil.Process | None:
    try:
        process = psutil.Process(int(pid_file.read_text()))
        is_it = any("supervisord" in word for word in process.cmdline())
    except (OSError, ValueError, psutil.Error):
        return None
    return process if is_it else None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _send(process: psutil.Process, *, kill: bool) -> None:
    try:
        # psutil makes sure that the id was not given to another process meanwhile.
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.Error:
        return
