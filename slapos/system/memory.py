"""What a process does not give back: bounded for one with many threads."""

import ctypes
from contextlib import suppress

#: glibc's name for how many arenas there may be, and how many there are to be.
M_ARENA_MAX, ARENAS = -8, 2


def share_arenas() -> None:
    """Have all threads to come allocate from two arenas, where the C library has such.

    Else each thread keeps what its largest task has needed. To be called before there are threads.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)
