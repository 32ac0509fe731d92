"""The process that promises run in: it does what it is told, one work after the other."""

import os
import signal
import sys
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from slapos.node.promise.footprint import COMMAND, Footprint
from slapos.system.process_tree import adopt_orphans, end_with_parent

#: The descriptor on which a process answers: `+NUMBER ANSWER` when it can do more, else `-NUMBER`.
ANSWER = 3

Key = TypeVar("Key")


@dataclass(frozen=True)
class Work(Generic[Key]):
    """What is to be done: `do` returns an answer of one line, or becomes another program.

    Works with the same `company` may share a process; with None, it is alone in its own.
    """

    key: Key
    do: Callable[[], bytes]
    company: Hashable | None = None


def be_a_worker(works: Sequence[Work[Any]], output: int, answer: int, command: int) -> NoReturn:
    """Do what `command` tells in this fresh fork, as a process on its own, and end.

    What is printed goes to `output`, and each answer to `answer`; all three are descriptors.
    """
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        end_with_parent()
        adopt_orphans()
        _arrange_descriptors(output, answer, command)
        _work(works)
        status = 0
    except BaseException:  # noqa: BLE001 - this process must never become a second launcher
        with suppress(BaseException):
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
    finally:
        os._exit(status)


def _work(works: Sequence[Work[Any]]) -> None:
    """Do what comes over COMMAND, as long as no work leaves a trace."""
    pid = os.getpid()
    footprint: Footprint | None = None
    while command := os.read(COMMAND, 16):
        index = int(command)
        if footprint is None and works[index].company is not None:
            footprint = Footprint()
        answer = works[index].do()
        if os.getpid() != pid:  # a fork that the work made and did not end
            return
        sys.stdout.flush()
        sys.stderr.flush()
        is_clean = footprint is not None and not footprint.change()
        line = (b"+%d " if is_clean else b"-%d ") % index + answer + b"\n"
        while line:
            line = line[os.write(ANSWER, line) :]


def _arrange_descriptors(output: int, answer: int, command: int) -> None:
    """Leave no descriptor open but stdin (empty), stdout and stderr (`output`) and our two."""
    # Out of the way first, or one dup2 could overwrite the other's source.
    output, answer, command = (_above(one, COMMAND) for one in (output, answer, command))
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(answer, ANSWER, inheritable=False)
    os.dup2(command, COMMAND, inheritable=False)
    os.closerange(COMMAND + 1, os.sysconf("SC_OPEN_MAX"))


def _above(descriptor: int, lowest: int) -> int:
    while descriptor <= lowest:
        descriptor = os.dup(descriptor)
    return descriptor
