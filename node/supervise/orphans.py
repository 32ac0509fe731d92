"""Services that outlived their supervisord, and would keep the ports and locks of their successors.

A supervisord that is killed leaves its processes behind, and no later one can take them over.
"""

import logging
from pathlib import Path

import psutil

from slapos.system.clock import Clock

logger = logging.getLogger(__name__)

#: supervisord gives it to every process that it starts: its own address.
MARK = "SUPERVISOR_SERVER_URL"
#: Seconds that an orphan gets to end by itself.
PATIENCE = 10.0
POLL = 0.05


def end_orphans(socket: Path, pid_file: Path, clock: Clock) -> list[int]:
    """End what a dead supervisord of this node left running; return the ids of those processes.

    Does nothing while the process named in `pid_file` lives: then it has to be spoken with.
    """
    if _is_supervisord(pid_file):
        return []
    return end_marked(MARK, f"unix://{socket}", clock, starter="its supervisord")


def end_marked(name: str, value: str, clock: Clock, *, starter: str) -> list[int]:
    """End all processes that have `name` = `value` in their environment; return their ids.

    `starter` is what they outlived, for the message.
    """
    orphans = [process for process in psutil.process_iter() if _has_mark(process, name, value)]
    for process in orphans:
        logger.warning("process %s outlived %s, it is ended", process.pid, starter)
        _send(process, kill=False)
    deadline = clock.monotonic() + PATIENCE
    while any(_is_alive(process) for process in orphans) and clock.monotonic() < deadline:
        clock.sleep(POLL)
    for process in orphans:
        _send(process, kill=True)
    return [process.pid for process in orphans]


def _is_supervisord(pid_file: Path) -> bool:
    try:
        words = psutil.Process(int(pid_file.read_text())).cmdline()
    except (OSError, ValueError, psutil.Error):
        return False
    return any("supervisord" in word for word in words)


def _has_mark(process: psutil.Process, name: str, value: str) -> bool:
    try:
        return process.environ().get(name) == value
    except (psutil.Error, OSError):  # another user's, or ended just now
        return False


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
