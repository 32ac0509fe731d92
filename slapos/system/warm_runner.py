"""A Runner that forks a process which has everything imported, instead of starting Python anew."""

import json
import logging
import os
import signal
import socket
import subprocess
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from slapos.protocol.errors import SlapOSError
from slapos.system.clock import Clock
from slapos.system.process_image import shown_arguments, shown_environment
from slapos.system.runner import CommandFailed, ProcessLimits, Result, Runner, User, follow
from slapos.system.warm_request import (
    LARGEST,
    RUN,
    WarmProgram,
    WarmRequest,
    installation,
    interpreter_variables,
)

logger = logging.getLogger(__name__)

#: Seconds that the warm process gets for its imports.
START_TIME = 60.0
#: Seconds before another one is started after one that could not be.
RETRY_TIME = 60.0
#: Seconds that the warm process gets to end.
ENDING_TIME = 5.0
#: Seconds between two looks at a process that is about to end.
POLL = 0.01
#: Bytes of arguments, and of an environment, that a fork has room to show.
ARGUMENTS_ROOM = 8 * 1024
ENVIRONMENT_ROOM = 32 * 1024
ROOM_VARIABLE = "SLAPOS_ROOM"

#: Returns what an argv means to a warm process, None where it has to be run cold.
Recognise = Callable[[Sequence[str]], WarmProgram | None]


class WarmProcessGone(SlapOSError):
    """The warm process is not there, or has ended."""

    code = "warm_process_gone"


class WarmRunner:
    """Runs the programs that it knows in forks of one warm process, and all others cold.

    May be shared between threads. The warm process is started for the first run that is worth it,
    and ends with this process. A run whose warm process ends under it, before anything was seen of
    the run, is done again cold; later, it has failed.
    """

    def __init__(
        self,
        cold: Runner,
        *,
        python: str,
        modules: Sequence[str],
        recognise: Recognise,
        environment: Mapping[str, str],
        clock: Clock,
        patience: float = 5.0,
    ) -> None:
        """`modules` is imported beforehand; `environment` is that of the warm process.

        `patience`: seconds between asking a program to end and ending it.
        """
        self._cold = cold
        self._python = python
        self._modules = modules
        self._recognise = recognise
        self._environment = environment
        self._clock = clock
        self._patience = patience
        self._lock = threading.Lock()
        self._process: _WarmProcess | None = None
        self._cold_runs = 0
        # Why the last one could not be started, and when another one may be.
        self._failure = ""
        self._next_start = 0.0

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        timeout: float | None = None,
        user: User | None = None,
        on_line: Callable[[str], None] | None = None,
        check: bool = True,
        limits: ProcessLimits | None = None,
    ) -> Result:
        """Do what SystemRunner.run does."""
        seen = _Seen(on_line)
        forked = self._fork(argv, cwd, environment, user, limits)
        if forked is not None:
            try:
                with forked:
                    return follow(
                        forked,
                        argv[0],
                        timeout=timeout,
                        patience=self._patience,
                        on_line=seen,
                        check=check,
                    )
            except WarmProcessGone as error:
                if seen.anything:
                    raise CommandFailed(
                        f"{argv[0]} was ended: the process that it was forked from was killed"
                    ) from error
                logger.warning("%s is run again, cold: %s", argv[0], error)
        return self._cold.run(
            argv,
            cwd=cwd,
            environment=environment,
            timeout=timeout,
            user=user,
            on_line=on_line,
            check=check,
            limits=limits,
        )

    def close(self) -> None:
        """End the warm process; a later run starts another one."""
        with self._lock:
            if self._process is not None:
                self._process.end()
            self._process = None

    def _fork(
        self,
        argv: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        user: User | None,
        limits: ProcessLimits | None,
    ) -> "_Forked | None":
        """Return a fork that is about to run, or None where it has to be run cold.

        Raises CommandFailed when the program could not be started, cold or warm.
        """
        program = self._recognise(argv)
        if program is None:
            return None
        request = WarmRequest(
            argv=tuple(argv),
            program=program,
            cwd=str(cwd),
            environment=dict(environment),
            user=user,
            limits=limits,
        )
        if not self._fits(request) or not self._is_worth_it(program):
            return None
        for _ in range(2):  # the second time with another warm process
            try:
                return _Forked(self._warm_process(), request, self._clock)
            except WarmProcessGone as error:
                logger.debug("%s could not be forked: %s", argv[0], error)
        return None

    def _fits(self, request: WarmRequest) -> bool:
        given = interpreter_variables(request.environment)
        return (
            given == interpreter_variables(self._environment)
            and len(shown_arguments(request.argv)) <= ARGUMENTS_ROOM
            and len(shown_environment(request.environment)) <= ENVIRONMENT_ROOM
            and len(request.to_message()) <= LARGEST
        )

    def _is_worth_it(self, program: WarmProgram) -> bool:
        with self._lock:
            if self._process is None and self._cold_runs < program.cold_first:
                self._cold_runs += 1
                return False
            return True

    def _warm_process(self) -> "_WarmProcess":
        """Return the warm process of what is installed now. Raises WarmProcessGone."""
        with self._lock:
            process = self._process
            if process is not None and not process.is_of_today():
                # What it runs goes on; it ends after that.
                self._process = process = None
            if process is None:
                self._process = process = self._start()
            return process

    def _start(self) -> "_WarmProcess":
        now = self._clock.monotonic()
        if self._failure and now < self._next_start:
            raise WarmProcessGone(self._failure)
        try:
            process = _WarmProcess(self._python, self._modules, self._environment)
        except WarmProcessGone as error:
            self._failure, self._next_start = str(error), now + RETRY_TIME
            logger.warning("everything is run cold for the next %g s: %s", RETRY_TIME, error)
            raise
        self._failure = ""
        return process


class _Seen:
    """Passes lines on, and knows whether there were any."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self.anything = False

    def __call__(self, line: str) -> None:
        self.anything = True
        if self._on_line is not None:
            self._on_line(line)


class _WarmProcess:
    """A warm process. It ends when nobody holds this any more, no fork of it either."""

    def __init__(self, python: str, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._channel, theirs = _socket_pair()
        words = [python, "-P", "-m", "slapos.system.warm_process"]
        words += [str(theirs.fileno()), ",".join(modules), "-" * ARGUMENTS_ROOM]
        try:
            process = subprocess.Popen(
                words,
                cwd="/",
                env={**environment, ROOM_VARIABLE: "-" * ENVIRONMENT_ROOM},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            raise WarmProcessGone(f"the warm process could not be started: {error}") from error
        finally:
            theirs.close()
        self._popen = process
        self.end = weakref.finalize(self, _end_warm_process, process, self._channel)
        self._channel.settimeout(START_TIME)
        try:
            answer = _answer(self._channel)
        except (WarmProcessGone, TimeoutError) as error:
            self.end()
            raise WarmProcessGone(f"no warm process came to be: {error}") from error
        if "ready" not in answer:
            self.end()
            raise WarmProcessGone(f"there is no warm process: {answer.get('refused')}")
        self._installation = [tuple(each) for each in answer["ready"]]

    def is_of_today(self) -> bool:
        """Whether it lives, and has imported what is installed now."""
        if not self.end.alive:
            return False
        found = installation(path for path, *_ in self._installation)
        return found == self._installation

    def ask(self, descriptors: Sequence[int]) -> None:
        """Have it fork. Raises WarmProcessGone."""
        try:
            socket.send_fds(self._channel, [RUN], list(descriptors))
        except (ConnectionError, TimeoutError) as error:
            self.give_up()
            raise WarmProcessGone(f"the warm process does not listen: {error}") from error

    def give_up(self) -> None:
        """End it at once, with all its forks."""
        with suppress(ProcessLookupError):
            self._popen.kill()
        self.end()


class _Forked:
    """A program in a fork of the warm process, as `follow` wants it."""

    def __init__(self, process: _WarmProcess, request: WarmRequest, clock: Clock) -> None:
        """Start it. Raises CommandFailed when it could not be, WarmProcessGone."""
        # Until this run is over, so that the warm process does not end before.
        self._held: _WarmProcess | None = process
        self._clock = clock
        self._status: int | None = None
        self._is_gone = False
        try:
            self._control, theirs = _socket_pair()
            reading, writing = os.pipe()
        except OSError as error:
            raise CommandFailed(f"{request.argv[0]} could not be started: {error}") from error
        self.output: IO[bytes] = os.fdopen(reading, "rb")
        try:
            with theirs, os.fdopen(writing, "wb"):
                try:
                    self._control.send(request.to_message())
                    process.ask((theirs.fileno(), writing))
                except OSError as error:
                    raise WarmProcessGone(f"nothing can be sent to it: {error}") from error
            answer = self._first_answer(process)
            if "refused" in answer:
                raise CommandFailed(answer["refused"])
            if "started" not in answer:
                raise WarmProcessGone("its fork ended before it began")
        except BaseException:
            self._control.close()
            self.output.close()
            raise
        self._pid: int = answer["started"]
        self._born = _born(self._pid)

    def __enter__(self) -> "_Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        self._held = None

    def begin(self) -> None:
        """Do nothing: it set its limits itself, before it said that it is started."""

    def check_started(self, status: int, output: str) -> None:
        """Do nothing: it said so."""

    def wait(self, timeout: float | None) -> int:
        """Return its exit status. Raises TimeoutError, WarmProcessGone."""
        if self._status is None:
            self._control.settimeout(timeout)
            try:
                self._status = int(_answer(self._control)["ended"])
            except WarmProcessGone:
                self._is_gone = True
                raise
        return self._status

    def end(self, patience: float) -> None:
        """End it and what it started: politely first, then for good."""
        self._kill(signal.SIGTERM)
        with suppress(TimeoutError, WarmProcessGone):
            self.wait(patience)
        # Also when the program itself has ended: what it started may still be there.
        self._kill(signal.SIGKILL)
        with suppress(WarmProcessGone):
            self.wait(None)
        deadline = self._clock.monotonic() + patience
        while self._is_gone and self._clock.monotonic() < deadline and self._is_alive():
            self._clock.sleep(POLL)

    def _kill(self, number: signal.Signals) -> None:
        """Send a signal to its session.

        While the warm process lives, it keeps the number of its fork from being given to another.
        """
        if self._is_gone and _born(self._pid) not in ("", self._born):
            return
        with suppress(ProcessLookupError):
            os.killpg(self._pid, number)

    def _is_alive(self) -> bool:
        return _born(self._pid) == self._born

    def _first_answer(self, process: _WarmProcess) -> dict[str, Any]:
        self._control.settimeout(START_TIME)
        try:
            return _answer(self._control)
        except TimeoutError as error:
            process.give_up()
            raise WarmProcessGone("the warm process does not react") from error


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _answer(channel: socket.socket) -> dict[str, Any]:
    """Return the next message. Raises WarmProcessGone when there are no more, TimeoutError."""
    try:
        message = channel.recv(LARGEST)
    except ConnectionError as error:
        raise WarmProcessGone(f"the warm process has ended: {error}") from error
    if not message:
        raise WarmProcessGone("the warm process has ended")
    answer: dict[str, Any] = json.loads(message)
    return answer


def _born(pid: int) -> str:
    """Return when a process was started, in the kernel's count; empty for one that has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *others = text.rpartition(")")[2].split()
    return "" if state in "ZX" else others[18]


def _end_warm_process(process: subprocess.Popen[bytes], channel: socket.socket) -> None:
    """End a warm process, which does so by itself once nobody can speak with it."""
    channel.close()
    try:
        process.wait(ENDING_TIME)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
