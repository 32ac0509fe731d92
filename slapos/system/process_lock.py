"""One of a kind at a time: a lock that the kernel lets go when its holder dies."""

import fcntl
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from slapos.protocol.errors import SlapOSError

#: Seconds between two attempts to take a lock.
_POLL = 0.02


class AlreadyRunning(SlapOSError):
    """Another process holds the lock."""

    code = "already_running"


@contextmanager
def process_lock(path: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`, with this process's id in it.

    The lock is on the open file (flock), so a file left over by a killed process hinders nobody.
    Waits `patience` seconds for the holder to end (math.inf: however long it takes), then raises
    AlreadyRunning with the holder's id.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        if not _taken(stream, patience):
            stream.seek(0)
            raise AlreadyRunning(
                f"{path} is held by process {stream.read().strip() or 'unknown'}: "
                "wait until it has ended"
            )
        with suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(stream.fileno(), 0)
            os.write(stream.fileno(), str(os.getpid()).encode())
        yield


def _taken(stream: IO[str], patience: float) -> bool:
    """Take the lock, and return whether that came about in time."""
    if patience == math.inf:
        fcntl.flock(stream, fcntl.LOCK_EX)
        return True
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        else:
            return True
