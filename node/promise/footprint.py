"""What a promise left behind in the process that it ran in.

The promises of a partition share a process, one after the other, because a process costs more than
a promise. The next one has to find it as the first one did; where it would not, it gets another.
"""

import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType

from slapos.system.settings import environment

#: Kilobytes by which a process may have grown.
GROWTH = 64 * 1024
#: What people put something else in the place of, in modules of Python. Only these: looking at an
#: object writes to it (its count of references), and the first write to a page after a fork is
#: dear, so that looking at all of a module would cost more than a promise.
PATCHED = {
    "builtins": ("open", "print", "__import__"),
    "os": ("environ", "fork", "system", "getcwd"),
    "socket": ("socket", "create_connection", "getaddrinfo"),
    "ssl": ("SSLContext", "_create_default_https_context"),
    "subprocess": ("Popen",),
    "time": ("time", "sleep", "monotonic"),
}
#: Modules that plugins of other libraries unload, to have others of these names.
LOADED = ("slapos", "slapos.node", "slapos.node.promise.generic", "slapos.system", "pkg_resources")
#: The descriptor over which a process is told what to do: the last of those that it is given.
COMMAND = 4
GIVEN = range(COMMAND + 1)
SIGNALS = range(1, 32)
TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
LIMITS = tuple(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _descriptors() -> object:
    given = [(status.st_dev, status.st_ino) for status in map(os.fstat, GIVEN)]
    return given, sorted(os.listdir("/proc/self/fd"))


#: What must be as it was, by its name.
LOOKS: dict[str, Callable[[], object]] = {
    "the working directory": os.getcwd,
    "the environment": lambda: dict(environment()),
    "the umask": _umask,
    "the path of modules": lambda: list(sys.path),
    "the open files": _descriptors,
    "the threads": lambda: os.stat("/proc/self/task").st_nlink,
    "the handlers of signals": lambda: [signal.getsignal(number) for number in SIGNALS],
    "the blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    "the timers": lambda: [signal.getitimer(timer) for timer in TIMERS],
    "the limits": lambda: [resource.getrlimit(limit) for limit in LIMITS],
    "the priority": lambda: os.getpriority(os.PRIO_PROCESS, 0),
    "the time-out of sockets": socket.getdefaulttimeout,
    "the hooks of Python": lambda: (
        (sys.stdin, sys.stdout, sys.stderr, sys.excepthook, threading.excepthook),
        (sys.gettrace(), sys.getprofile(), sys.getrecursionlimit(), gc.isenabled()),
        (list(sys.meta_path), list(sys.path_hooks)),
    ),
    "the log": lambda: (
        (logging.root.level, list(logging.root.handlers), list(logging.root.filters)),
        (logging.root.manager.disable, logging.getLoggerClass()),
    ),
    "the filter of warnings": lambda: list(warnings.filters),
}


class Footprint:
    """Compares this process with what it was when this was made."""

    def __init__(self) -> None:
        self._size = _size()
        self._found = {name: look() for name, look in LOOKS.items()}
        self._patched: dict[str, list[object]] = {}
        self._loaded: dict[str, ModuleType] = {}
        self._take_modules()

    def change(self) -> str:
        """Return what is not as it was, empty when all is. More modules may have been loaded."""
        with suppress(ChildProcessError):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return "a process that it started"
        for name, module in self._loaded.items():
            if sys.modules.get(name) is not module:
                return f"the module {name}"
        for name, content in self._patched.items():
            if _content(name) != content:
                return f"the module {name}"
        for name, look in LOOKS.items():
            try:
                found = look()
            except OSError as error:
                return f"{name} ({error.strerror})"
            if found != self._found[name]:
                return name
        self._take_modules()
        return "the memory" if _size() > self._size + GROWTH else ""

    def _take_modules(self) -> None:
        for name in (*LOADED, *PATCHED):
            if name in sys.modules and name not in self._loaded:
                self._loaded[name] = sys.modules[name]
                if name in PATCHED:
                    self._patched[name] = _content(name)


def _content(name: str) -> list[object]:
    return [getattr(sys.modules[name], attribute, None) for attribute in PATCHED[name]]


def _size() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
