"""Promises in processes under limits, each ended with all below it when its time is up.

A process is a fork of the launcher, which has the promise library loaded already. A fork and its
end cost more than a promise: works of one company share a process, one after the other, until one
of them ends it, is ended, or leaves something behind in it. Nothing is polled: the launcher sleeps
until a process says something, ends, or is out of time.
"""

import gc
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Generic, TypeVar

from slapos.node.promise.worker import Work, be_a_worker
from slapos.system.clock import Clock
from slapos.system.process_tree import adopt_orphans, children_of, end_tree

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
#: Seconds that work may take before others get a process of their own, beside it.
SHORT = 0.1

Key = TypeVar("Key")


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
class _Process(Generic[Key]):
    """A process that does the work of number `index`; with None it waits for more."""

    company: Hashable | None
    output_end: int
    answer_end: int
    command_end: int
    pid: int = 0
    index: int | None = None
    is_used: bool = False
    begun: float = 0.0
    deadline: float = 0.0
    ending: Ending = Ending.BY_ITSELF
    kills: int = 0
    printed: int = 0
    output: bytearray = field(default_factory=bytearray)
    answer: bytearray = field(default_factory=bytearray)


class ProcessPool(Generic[Key]):
    """Does works in up to `parallel` processes at a time, each for up to `timeout` seconds.

    There is one process at first, and one more whenever those there are take longer than SHORT.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        parallel: int,
        timeout: float,
        on_begin: Callable[[list[Key]], None] = lambda _: None,
    ) -> None:
        """`on_begin` is told, when a work begins, what is being done now."""
        self._clock = clock
        self._parallel = parallel
        self._timeout = timeout
        self._on_begin = on_begin
        self._selector = selectors.DefaultSelector()
        self._processes: dict[int, _Process[Key]] = {}
        self._works: list[Work[Key]] = []
        self._waiting: list[int] = []
        #: Works that are done again, first in a process: to be sure who is to blame.
        self._again: set[int] = set()

    def run(self, works: Iterable[Work[Key]]) -> Iterator[Ended[Key]]:
        """Do the works and yield each as it ends. Only for the main thread of a process.

        When the iteration is left early, what still runs is killed.
        """
        self._works = list(works)
        self._waiting = list(range(len(self._works)))
        if not self._waiting:
            return
        adopt_orphans()
        # What is there now stays: so that collecting garbage in a fork copies no page for it.
        gc.freeze()
        with self._woken_by_signals():
            try:
                while self._hand_out():
                    self._wait()
                    yield from self._ended()
            finally:
                for process in list(self._processes.values()):
                    end_tree(process.pid)
                    self._forget(process, wait=True)

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

    # Who does what.

    def _hand_out(self) -> bool:
        """Give work to whom is free for it, and return whether any work is being done."""
        for process in list(self._processes.values()):
            if process.index is None:
                self._continue(process)
        now = self._clock.monotonic()
        # Whoever is slow holds up nobody; as long as all are quick, one process does it.
        while (
            self._waiting
            and len(self._processes) < self._parallel
            and all(now - process.begun >= SHORT for process in self._processes.values())
        ):
            self._start(self._waiting.pop(0))
        return bool(self._processes)

    def _continue(self, process: _Process[Key]) -> None:
        if not _is_over(process.pid):
            for index in self._waiting:
                if self._works[index].company == process.company and index not in self._again:
                    self._waiting.remove(index)
                    self._begin(process, index)
                    with suppress(BrokenPipeError):  # it ends this very moment
                        os.write(process.command_end, b"%d\n" % index)
                    return
        # It has no child, or it would not have been given more to do.
        self._forget(process, wait=True, is_clean=True)

    def _begin(self, process: _Process[Key], index: int) -> None:
        process.index = index
        process.begun = self._clock.monotonic()
        process.deadline = process.begun + self._timeout
        process.printed = 0
        process.output.clear()
        process.answer.clear()
        busy = {one.index for one in self._processes.values() if one.index is not None}
        self._on_begin([self._works[one].key for one in busy | {index}])

    def _start(self, index: int) -> None:
        company = self._works[index].company
        output_end, output = os.pipe()
        answer_end, answer = os.pipe()
        command, command_end = os.pipe()
        process = _Process[Key](company, output_end, answer_end, command_end)
        self._begin(process, index)
        os.write(command_end, b"%d\n" % index)
        sys.stdout.flush()
        sys.stderr.flush()
        process.pid = os.fork()
        if process.pid == 0:
            be_a_worker(self._works, output, answer, command)
        for descriptor in (output, answer, command):
            os.close(descriptor)
        self._processes[process.pid] = process
        for descriptor, take in ((output_end, _take_output), (answer_end, _take_answer)):
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ, partial(take, process))

    # What comes of it.

    def _wait(self) -> None:
        nearest = min(process.deadline for process in self._processes.values())
        left = max(0.0, nearest - self._clock.monotonic())
        ready = self._selector.select(min(left, SHORT))
        if not ready and left > SHORT:
            # It takes long: what was said before must not wait for it.
            sys.stdout.flush()
            if not self._waiting or len(self._processes) == self._parallel:
                ready = self._selector.select(left - SHORT)
        for key, _ in ready:
            if key.data() == b"":  # the other end is closed
                self._selector.unregister(key.fileobj)

    def _ended(self) -> Iterator[Ended[Key]]:
        for process in list(self._processes.values()):
            has_answered = process.answer.endswith(b"\n")
            if has_answered and process.ending is Ending.BY_ITSELF:
                if (ended := self._answered(process)) is not None:
                    yield ended
            elif _is_over(process.pid) or process.kills > KILLS:
                yield self._over(process, wait=process.kills <= KILLS)
            elif process.printed > OUTPUT_LIMIT and process.ending is Ending.BY_ITSELF:
                process.ending = Ending.TOO_MUCH_OUTPUT
                self._kill(process)
            elif not process.kills and (has_answered or len(process.answer) == ANSWER_LIMIT):
                # It went on when it was asked to end; or this will never be an answer.
                self._kill(process)
            elif self._clock.monotonic() >= process.deadline:
                self._end(process)

    def _answered(self, process: _Process[Key]) -> Ended[Key] | None:
        """Take an answer, after which the process is free for more, or has to make room."""
        _drain(process)  # what was printed before the answer
        mark, _, answer = bytes(process.answer).partition(b" ")
        index = process.index or 0
        if mark[1:] != b"%d" % index:  # not ours: it is as if nothing had been said
            end_tree(process.pid)
            if process.is_used:  # and perhaps it was another one who said that
                self._forget(process, wait=True)
                self._again.add(index)
                self._waiting.insert(0, index)
                return None
            return self._over(process, wait=True)
        ended = self._told(process, 0, answer)
        process.index, process.is_used = None, True
        if mark[:1] != b"+":
            end_tree(process.pid)
            self._forget(process, wait=True)
        return ended

    def _over(self, process: _Process[Key], *, wait: bool) -> Ended[Key]:
        status = self._forget(process, wait=wait)
        return self._told(process, status, b"")

    def _told(self, process: _Process[Key], status: int | None, answer: bytes) -> Ended[Key]:
        return Ended(
            self._works[process.index or 0].key,
            process.ending,
            status,
            answer,
            process.output.decode("utf-8", "replace").strip(),
            self._clock.monotonic() - process.begun,
        )

    def _end(self, process: _Process[Key]) -> None:
        """Ask a process to end, and kill it when it was asked already."""
        if process.ending is not Ending.BY_ITSELF:
            self._kill(process)
            return
        process.ending = Ending.OUT_OF_TIME
        process.deadline = self._clock.monotonic() + PATIENCE
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)

    def _kill(self, process: _Process[Key]) -> None:
        process.kills += 1
        process.deadline = self._clock.monotonic() + PATIENCE
        end_tree(process.pid)

    def _forget(self, process: _Process[Key], *, wait: bool, is_clean: bool = False) -> int | None:
        """Take a process off the list, with what it left in its session; return its status."""
        del self._processes[process.pid]
        # Before it is waited for: until then nobody else can have its number.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) if wait else None
        if not is_clean:
            self._end_orphans()
        _drain(process)
        for descriptor in (process.output_end, process.answer_end):
            with suppress(KeyError):
                self._selector.unregister(descriptor)
            os.close(descriptor)
        os.close(process.command_end)
        return status

    def _end_orphans(self) -> None:
        """Kill what ended promises left behind, which is all that became our child unasked."""
        for pid in children_of(os.getpid()):
            if pid not in self._processes:
                end_tree(pid)
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _drain(process: _Process[Key]) -> None:
    for _ in range(LAST_READS):
        if not _take_output(process):
            return


def _take_output(process: _Process[Key]) -> bytes | None:
    data = _read(process.output_end)
    if data:
        process.printed += len(data)
        process.output += data
        del process.output[:-OUTPUT_KEPT]
    return data


def _take_answer(process: _Process[Key]) -> bytes | None:
    data = _read(process.answer_end)
    if data:
        process.answer += data
        del process.answer[ANSWER_LIMIT:]
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
