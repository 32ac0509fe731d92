"""Promises in processes of their own: several at a time, each with limits, ended with all below it.

A process is a fork of the launcher, which has the promise library loaded already: so a plugin
costs milliseconds. Nothing is polled: the launcher sleeps until a process says something, ends, or
is out of time.
"""

import gc
import os
import selectors
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Generic, NoReturn, TypeVar

from slapos.system.clock import Clock
from slapos.system.process_tree import adopt_orphans, children_of, end_tree, end_with_parent

#: Seconds between asking a process to end and ending it.
PATIENCE = 1.0
#: How often a process is killed before it is given up: one that hangs in the kernel cannot be.
KILLS = 3
#: What a process may print in all before it is ended, and how much of its end is kept, in bytes.
OUTPUT_LIMIT = 16 * 1024 * 1024
OUTPUT_KEPT = 64 * 1024
#: The largest answer taken from a process, in bytes.
ANSWER_LIMIT = 1024 * 1024
#: How many times an ended process's pipe is read: it holds one read at most, unless somebody who
#: cannot be killed goes on writing.
LAST_READS = 16
#: The descriptor on which a process answers.
ANSWER = 3

Key = TypeVar("Key")
#: What a process does. It writes its answer to the descriptor ANSWER, or becomes another program.
Work = Callable[[], None]


class Ending(Enum):
    """How a process came to its end."""

    BY_ITSELF = "by itself"
    OUT_OF_TIME = "out of time"
    TOO_MUCH_OUTPUT = "too much output"


@dataclass(frozen=True)
class Ended(Generic[Key]):
    """A process that is over; `status` is negative for a signal, None for one given up."""

    key: Key
    ending: Ending
    status: int | None
    answer: bytes
    output: str
    seconds: float


@dataclass
class _Running(Generic[Key]):
    key: Key
    pid: int
    begun: float
    deadline: float
    output_end: int
    answer_end: int
    ending: Ending = Ending.BY_ITSELF
    kills: int = 0
    printed: int = 0
    output: bytearray = field(default_factory=bytearray)
    answer: bytearray = field(default_factory=bytearray)


class ProcessPool(Generic[Key]):
    """Runs work in up to `parallel` processes at a time, each for up to `timeout` seconds."""

    def __init__(self, clock: Clock, *, parallel: int, timeout: float) -> None:
        self._clock = clock
        self._parallel = parallel
        self._timeout = timeout
        self._selector = selectors.DefaultSelector()
        self._running: dict[int, _Running[Key]] = {}

    def run(self, works: Iterable[tuple[Key, Work]]) -> Iterator[Ended[Key]]:
        """Do the works and yield each as it ends. Only for the main thread of a process.

        When the iteration is left early, what still runs is killed.
        """
        waiting = deque(works)
        adopt_orphans()
        # What is there now stays: so that collecting garbage in a fork copies no page for it.
        gc.freeze()
        with self._woken_by_signals():
            try:
                while waiting or self._running:
                    while waiting and len(self._running) < self._parallel:
                        self._start(*waiting.popleft())
                    self._wait()
                    yield from self._ended()
            finally:
                for running in list(self._running.values()):
                    end_tree(running.pid)
                    self._forget(running, wait=True)

    @contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        """Have a signal, the end of a child above all, wake the selector."""
        reading, writing = socket.socketpair()
        writing.setblocking(False)
        previous = signal.signal(signal.SIGCHLD, lambda *_: None)
        previous_wakeup = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        self._selector.register(reading, selectors.EVENT_READ, lambda: reading.recv(4096))
        try:
            yield
        finally:
            self._selector.unregister(reading)
            signal.set_wakeup_fd(previous_wakeup)
            signal.signal(signal.SIGCHLD, previous)
            reading.close()
            writing.close()

    def _start(self, key: Key, work: Work) -> None:
        output_end, output = os.pipe()
        answer_end, answer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        begun = self._clock.monotonic()
        pid = os.fork()
        if pid == 0:
            _be_a_promise(work, output, answer)
        os.close(output)
        os.close(answer)
        running = _Running(key, pid, begun, begun + self._timeout, output_end, answer_end)
        self._running[pid] = running
        for descriptor, take in ((output_end, _take_output), (answer_end, _take_answer)):
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ, partial(take, running))

    def _wait(self) -> None:
        nearest = min(running.deadline for running in self._running.values())
        for key, _ in self._selector.select(max(0.0, nearest - self._clock.monotonic())):
            if key.data() == b"":  # the other end is closed
                self._selector.unregister(key.fileobj)

    def _ended(self) -> Iterator[Ended[Key]]:
        for running in list(self._running.values()):
            if _is_over(running.pid) or running.kills > KILLS:
                seconds = self._clock.monotonic() - running.begun
                status = self._forget(running, wait=running.kills <= KILLS)
                output = running.output.decode("utf-8", "replace").strip()
                yield Ended(
                    running.key, running.ending, status, bytes(running.answer), output, seconds
                )
            elif running.printed > OUTPUT_LIMIT and running.ending is Ending.BY_ITSELF:
                running.ending = Ending.TOO_MUCH_OUTPUT
                self._kill(running)
            elif self._clock.monotonic() >= running.deadline:
                if running.ending is Ending.BY_ITSELF:
                    running.ending = Ending.OUT_OF_TIME
                    running.deadline = self._clock.monotonic() + PATIENCE
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(running.pid, signal.SIGTERM)
                else:
                    self._kill(running)

    def _kill(self, running: _Running[Key]) -> None:
        running.kills += 1
        running.deadline = self._clock.monotonic() + PATIENCE
        end_tree(running.pid)

    def _forget(self, running: _Running[Key], *, wait: bool) -> int | None:
        """Take a process off the list, with what it left in its session; return its status."""
        del self._running[running.pid]
        # Before it is waited for: until then nobody else can have its number.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(running.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1]) if wait else None
        self._end_orphans()
        for descriptor, take in (
            (running.output_end, _take_output),
            (running.answer_end, _take_answer),
        ):
            for _ in range(LAST_READS):
                if not take(running):
                    break
            with suppress(KeyError):
                self._selector.unregister(descriptor)
            os.close(descriptor)
        return status

    def _end_orphans(self) -> None:
        """Kill what ended promises left behind, which is all that became our child unasked."""
        for pid in children_of(os.getpid()):
            if pid not in self._running:
                end_tree(pid)
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _take_output(running: _Running[Key]) -> bytes | None:
    data = _read(running.output_end)
    if data:
        running.printed += len(data)
        running.output += data
        del running.output[:-OUTPUT_KEPT]
    return data


def _take_answer(running: _Running[Key]) -> bytes | None:
    data = _read(running.answer_end)
    if data and len(running.answer) < ANSWER_LIMIT:
        running.answer += data
    return data


def _read(descriptor: int) -> bytes | None:
    """Return what can be read now, None for nothing yet, b"" for never again."""
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return None


def _is_over(pid: int) -> bool:
    """Whether a child has ended; it is not waited for yet."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _be_a_promise(work: Work, output: int, answer: int) -> NoReturn:
    """Do the work in a fresh fork, as a process on its own, and end."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        end_with_parent()
        adopt_orphans()
        _arrange_descriptors(output, answer)
        work()
        sys.stdout.flush()
        sys.stderr.flush()
        status = 0
    except BaseException:  # noqa: BLE001 - this process must never become a second launcher
        with suppress(BaseException):
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
    finally:
        os._exit(status)


def _arrange_descriptors(output: int, answer: int) -> None:
    """Leave no descriptor open but stdin (empty), stdout and stderr (`output`) and ANSWER."""
    # Out of the way first, or one dup2 could overwrite the other's source.
    output, answer = (_above(descriptor, ANSWER) for descriptor in (output, answer))
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(answer, ANSWER, inheritable=False)
    os.closerange(ANSWER + 1, os.sysconf("SC_OPEN_MAX"))


def _above(descriptor: int, lowest: int) -> int:
    while descriptor <= lowest:
        descriptor = os.dup(descriptor)
    return descriptor
