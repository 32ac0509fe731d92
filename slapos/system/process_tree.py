"""Processes and what they started: finding all of it, and ending all of it (Linux)."""

import ctypes
import os
import signal
from contextlib import suppress
from functools import cache

# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36

#: How often `end_tree` looks again for processes that were started while it was at work.
_ROUNDS = 10


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, instead of process 1.

    So nothing that a child starts, however it detaches itself, gets out of sight.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; kept when another program is run."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def belong_to_user() -> None:
    """Have /proc show this process as its user's, although it was root's; as after an exec."""
    _prctl(_PR_SET_DUMPABLE, 1)


def children_of(pid: int) -> list[int]:
    """Return the ids of a process's children, ended ones that nobody waited for included."""
    if not _kernel_keeps_children():
        return _children_by_search(pid)
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):  # it may end at any moment
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as stream:
                found += map(int, stream.read().split())
    return found


def end_tree(pid: int) -> None:
    """Kill a process and everything below it. The caller waits for those that are its own."""
    for _ in range(_ROUNDS):
        below = _descendants(pid)
        # From the top: who is dead starts nothing new.
        for one in (pid, *below):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(one, signal.SIGKILL)
        if not below:
            return


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = children_of(waiting.pop())
        found += children
        waiting += children
    return found


@cache
def _kernel_keeps_children() -> bool:
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def _children_by_search(pid: int) -> list[int]:
    import psutil  # noqa: PLC0415 - most kernels do not need it, and it takes long to import

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    library = _library()
    if library.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
