"""The warm process: has programs imported, and forks itself for each run (`python -P -m …`).

Arguments: the descriptor of the socket to its runner, the modules to import, and a word that only
makes room. What runs with root's rights here is this module and those imports, which are root's own
installation; all else happens in a fork that has become the user it is for. It never knows what its
forks are about, and ends, with all of them, when its runner does.
"""

import atexit
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import ModuleType
from typing import NoReturn

from slapos.protocol.errors import SlapOSError
from slapos.system.process_image import ProcessImage
from slapos.system.process_tree import belong_to_user, end_with_parent
from slapos.system.runner import UMASK, User
from slapos.system.warm_request import (
    LARGEST,
    WarmProgram,
    WarmRequest,
    installation,
    interpreter_variables,
    to_message,
)

#: Exit status of a program that failed with an exception, and of one that could not be started.
EXIT_FAILED = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT
#: Where a fork has its socket until it has become the program.
CONTROL = 3


class UnfitProcess(SlapOSError):
    """This process cannot be forked from."""

    code = "unfit_process"


class WarmProcess:
    """Forks itself for each request, and tells how the forks ended."""

    def __init__(self, channel: socket.socket, image: ProcessImage) -> None:
        self._channel = channel
        self.image = image
        #: By process id: the socket of each fork whose end its runner has not taken note of.
        self._running: dict[int, socket.socket] = {}
        self._told: set[int] = set()
        #: Forks that nobody waits for any more.
        self._dying: set[int] = set()
        self._is_ending = False
        self._woken, self._waking = socket.socketpair()
        self._waking.setblocking(False)
        self._woken.setblocking(False)

    def serve(self) -> None:
        """Serve until the runner closes its end, or until all forks have ended after a SIGTERM."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end_soon)
        signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        pids: dict[int, int] = {}
        try:
            while not self._is_ending or self._running.keys() - self._told:
                for descriptor, _ in poll.poll():
                    if descriptor == self._channel.fileno():
                        if (pid := self._take_request()) is None:
                            return
                        if pid:
                            # Hang-up is always told: the runner has seen the end, or is not there.
                            poll.register(self._running[pid], 0)
                            pids[self._running[pid].fileno()] = pid
                    elif descriptor == self._woken.fileno():
                        with suppress(BlockingIOError):
                            self._woken.recv(4096)
                        self._tell_ends()
                    else:
                        poll.unregister(descriptor)
                        self._forget(pids.pop(descriptor))
        finally:
            for pid in list(self._running):
                self._forget(pid)
            signal.set_wakeup_fd(-1)

    def _end_soon(self, *_: object) -> None:
        """Leave time to forks, which who ends everything has told to end, too."""
        self._is_ending = True

    def _take_request(self) -> int | None:
        """Fork for a request; return the process id, 0 for none, or None when there are no more."""
        message, descriptors, _, _ = socket.recv_fds(self._channel, 16, 2)
        if not message:
            return None
        if self._is_ending or len(descriptors) != 2:  # fewer when there is no room for more
            for descriptor in descriptors:
                os.close(descriptor)
            return 0
        control, output = socket.socket(fileno=descriptors[0]), descriptors[1]
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            with control, suppress(OSError):
                control.send(to_message(refused=f"no process could be forked: {error}"))
            os.close(output)
            return 0
        if pid == 0:
            _be_forked(control, output, parent, self)
        os.close(output)
        self._running[pid] = control
        return pid

    def detach(self) -> None:
        """In a fork: forget all sockets, whose descriptors are about to mean something else."""
        signal.set_wakeup_fd(-1)
        for each in (self._channel, self._woken, self._waking, *self._running.values()):
            each.detach()

    def _tell_ends(self) -> None:
        for pid in self._running.keys() - self._told:
            # Not waited for yet: until the runner has taken note, nobody else gets its number.
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                continue
            self._told.add(pid)
            killed = ended.si_code != os.CLD_EXITED
            status = -ended.si_status if killed else ended.si_status
            with suppress(OSError):
                self._running[pid].send(to_message(ended=status))
        self._dying -= {pid for pid in self._dying if os.waitpid(pid, os.WNOHANG)[0]}

    def _forget(self, pid: int) -> None:
        """Let go of a fork whose runner has seen its end, or does not wait for it."""
        self._running.pop(pid).close()
        if pid in self._told:
            self._told.remove(pid)
            os.waitpid(pid, 0)
            return
        for kill in (os.killpg, os.kill):
            with suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)
        self._dying.add(pid)


def _be_forked(control: socket.socket, output: int, parent: int, process: WarmProcess) -> NoReturn:
    """Become the program that is asked for, and end as it ends. Nothing may get out of here."""
    status = EXIT_FAILED
    try:
        process.detach()
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        failure = "nothing could be started"
        try:
            request = WarmRequest.from_message(control.recv(LARGEST))
            control = _arrange_descriptors(control, output)
            name = request.argv[0]
            failure = f"the limits of {name} could not be set"
            if request.limits is not None:
                request.limits.bind(os.getpid())
            failure = f"{name} could not be started in {request.cwd}"
            os.chdir(request.cwd)
            if request.user is not None:
                _become(request.user)
            end_with_parent()
            if os.getppid() != parent:
                os._exit(EXIT_FAILED)
            _take_environment(request.environment)
            process.image.show(request.argv, request.environment)
        except (OSError, ValueError, SlapOSError) as error:
            control.send(to_message(refused=f"{failure}: {error}"))
            os._exit(EXIT_FAILED)
        control.send(to_message(started=os.getpid()))
        control.close()
        status = _run(request.program)
        _finish()
    except BaseException:  # noqa: BLE001 - this process must never become a second warm process
        with suppress(BaseException):
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
    finally:
        os._exit(status)


def _arrange_descriptors(control: socket.socket, output: int) -> socket.socket:
    """Leave no descriptor open but stdin (empty), stdout and stderr (`output`) and CONTROL."""
    # Out of the way first, or one dup2 could overwrite the other's source.
    source = _above(control.detach())
    output = _above(output)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(source, CONTROL, inheritable=False)
    os.closerange(CONTROL + 1, os.sysconf("SC_OPEN_MAX"))
    return socket.socket(fileno=CONTROL)


def _above(descriptor: int) -> int:
    while descriptor <= CONTROL:
        descriptor = os.dup(descriptor)
    return descriptor


def _become(user: User) -> None:
    """Become a user for good."""
    os.umask(UMASK)
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    uids, gids = {user.uid}, {user.gid}
    if {*os.getresuid()} != uids or {*os.getresgid()} != gids:
        raise UnfitProcess(f"it could not become the user {user.uid}")
    if {*os.getgroups()} != {*user.groups}:
        raise UnfitProcess(f"it could not take the groups of the user {user.uid}")
    belong_to_user()


def _take_environment(environment: Mapping[str, str]) -> None:
    # An interpreter that is started without a locale sets one for what it starts.
    own = interpreter_variables(os.environ)
    os.environ.clear()
    os.environ.update({**own, **environment})


def _run(program: WarmProgram) -> int:
    """Run a program as a new interpreter would, and return its exit status."""
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    if program.script is not None:
        main.__file__ = program.script
        sys.path.insert(0, os.path.dirname(os.path.realpath(program.script)))
    sys.modules["__main__"] = main
    try:
        module = importlib.import_module(program.module)
        sys.argv[:] = [program.script or str(module.__file__), *program.arguments]
        sys.orig_argv[:] = [sys.executable, *sys.argv]
        return _status(module.main())
    except SystemExit as end:
        return _status(end.code)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BaseException as error:  # noqa: BLE001 - as an interpreter does it
        trace = error.__traceback__
        error.__traceback__ = trace and trace.tb_next  # without this function
        sys.excepthook(type(error), error, error.__traceback__)
        return EXIT_FAILED


def _status(code: object) -> int:
    """Return the exit status that an interpreter makes of what is given to `sys.exit`."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)  # noqa: T201 - as an interpreter does it
    return EXIT_FAILED


def _finish() -> None:
    """Do what an interpreter does at its end, but for taking all modules apart."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()


def check_fit(descriptors: set[int]) -> None:
    """See that nothing is in the way of forking. Raises UnfitProcess.

    A fork has no thread but the one that forked, and closes descriptors that are not its own.
    """
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        raise UnfitProcess(f"the modules started {len(threads) - 1} threads")
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one with which this folder was read
            target = os.readlink(f"/proc/self/fd/{name}")
            if int(name) not in descriptors:
                raise UnfitProcess(f"the modules left {target} open")


def main() -> int:
    """Serve the runner that started this."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(channel.fileno(), False)
    paths = [path for path in sys.path if path]
    stamp = installation(paths)
    try:
        image = ProcessImage()
        for name in sys.argv[2].split(","):
            importlib.import_module(name)
        check_fit({0, 1, 2, channel.fileno()})
    except Exception as error:  # noqa: BLE001 - whatever a module may raise; the runner says it
        with suppress(ConnectionError):  # the runner was killed
            channel.send(to_message(refused=f"{type(error).__name__}: {error}"))
        return EXIT_FAILED
    image.show_arguments(sys.orig_argv[:4])
    # What is there now stays: so that collecting garbage in a fork copies no page for it.
    gc.collect()
    gc.freeze()
    try:
        channel.send(to_message(ready=stamp))
    except ConnectionError:  # the runner was killed meanwhile
        return EXIT_FAILED
    WarmProcess(channel, image).serve()
    return 0


if __name__ == "__main__":
    # Taking all modules apart would take longer than most of what is run here.
    os._exit(main())
