"""One of a kind at a time: a lock that the kernel lets go when its holder dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slapos.protocol.errors import SlapOSError


class AlreadyRunning(SlapOSError):
    """Another process holds the lock."""

    code = "already_running"


@contextmanager
def process_lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, with this process's id in it.

    The lock is on the open file (flock), so a file left over by a killed process hinders nobody.
    With `wait`, wait for the holder to end; else raise AlreadyRunning with the holder's id.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            stream.seek(0)
            raise AlreadyRunning(
                f"{path} is held by process {stream.read().strip() or 'unknown'}: "
                "wait until it has ended"
            ) from None
        stream.seek(0)
        stream.truncate()
        stream.write(str(os.getpid()))
        stream.flush()
        yield
