"""Programs as our supervisord has them: small, since there are hundreds, and quick to start.

A running program costs supervisord two descriptors (its input, its output), and time only when it
prints something. What it prints is appended to a log that is opened for each time.
"""

import errno
import os
import pwd
import resource
import select
from contextlib import suppress
from typing import Any

from supervisor import events
from supervisor.compat import as_bytes
from supervisor.dispatchers import POutputDispatcher
from supervisor.options import ProcessConfig
from supervisor.process import Subprocess
from supervisor.states import ProcessStates

from slapos.node.isolate.cgroup import CgroupFailed
from slapos.node.supervise.group_files import layout_of
from slapos.node.supervise.limited_process import confine

#: Descriptors that are kept for supervisord itself: its socket, its logs, who asks it.
RESERVED_FILES = 64
CHANNELS = {
    "stdout": events.ProcessCommunicationStdoutEvent,
    "stderr": events.ProcessCommunicationStderrEvent,
}
#: States that end without anybody's doing.
PASSING = (ProcessStates.STARTING, ProcessStates.STOPPING, ProcessStates.BACKOFF)


class Outputs:
    """The outputs of all programs; only those with something to read cost time."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._readers: dict[int, Any] = {}

    def fileno(self) -> int:
        """Return the descriptor that is readable when one of them is."""
        return self._poll.fileno()

    def add(self, descriptor: int, reader: Any) -> None:
        """Watch one; `reader` is a dispatcher of supervisor's."""
        self._readers[descriptor] = reader
        self._poll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        """Watch it no more; to be called before it is closed."""
        if self._readers.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def read(self) -> None:
        """Have those that can be read be read."""
        for descriptor, _ in self._poll.poll(0):
            reader = self._readers.get(descriptor)
            if reader is None:
                continue
            try:
                reader.handle_read_event()
            except Exception:  # noqa: BLE001 - of one program, and must not end all others
                reader.handle_error()
            if not reader.readable():
                self.remove(descriptor)

    def close(self) -> None:
        """Watch none."""
        self._poll.close()


class Output:
    """What one program prints to one channel, on its way to a log: a dispatcher of supervisor's."""

    __slots__ = ("channel", "closed", "fd", "process")

    def __init__(self, process: Any, channel: str, fd: int) -> None:
        """Make the log. Raises OSError."""
        self.process = process
        self.channel = channel
        self.fd = fd
        self.closed = False
        if self._path:
            os.close(self._open())

    def __repr__(self) -> str:
        return f"<{self.channel} of {self.process}>"

    @property
    def _path(self) -> str | None:
        return getattr(self.process.config, f"{self.channel}_logfile") or None

    def _open(self) -> int:
        # Neither a link nor a pipe, which may be put there, leads astray or stops supervisord.
        flags = (
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        )
        return os.open(str(self._path), flags, 0o666)

    def readable(self) -> bool:
        """Return whether there may be more."""
        return not self.closed

    def writable(self) -> bool:
        """Return whether something is to be written: never."""
        return False

    def handle_read_event(self) -> None:
        """Move what was printed to the log."""
        data = self.process.config.options.readfd(self.fd)
        if data:
            # A full disk must not stop a service: what it prints is lost then, as ever.
            with suppress(OSError):
                self._append(data)
        else:
            self.close()

    def _append(self, data: bytes) -> None:
        if not self._path:
            return
        log = self._open()
        try:
            while data:
                data = data[os.write(log, data) :]
            size = os.fstat(log).st_size
        finally:
            os.close(log)
        most = getattr(self.process.config, f"{self.channel}_logfile_maxbytes")
        if most and size >= most:
            self._rotate()

    def _rotate(self) -> None:
        path = str(self._path)
        backups = getattr(self.process.config, f"{self.channel}_logfile_backups")
        for number in range(backups - 1, 0, -1):
            with suppress(FileNotFoundError):
                os.replace(f"{path}.{number}", f"{path}.{number + 1}")
        if backups:
            os.replace(path, f"{path}.1")
        else:
            os.unlink(path)
        os.close(self._open())

    def handle_error(self) -> None:
        """Say what went wrong, and read no more."""
        self.process.config.options.logger.critical(f"{self} cannot be read, it is closed")
        self.close()

    def close(self) -> None:
        """Read no more."""
        self.closed = True

    def removelogs(self) -> None:
        """Empty the log."""
        if self._path:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            os.close(self._open())

    def reopenlogs(self) -> None:
        """Do nothing: the log is opened whenever something is written."""


class Service(Subprocess):  # type: ignore[misc]
    """A program under supervision; what its child does before it becomes the program is here."""

    def change_state(self, new_state: int, expected: bool = True) -> Any:
        """Change the state, and have supervisord look at the process while it is a passing one."""
        changed = super().change_state(new_state, expected)
        restarts = new_state == ProcessStates.EXITED and self.config.autorestart
        if new_state in PASSING or restarts:
            self.config.options.passing[id(self)] = self
        else:
            self.config.options.passing.pop(id(self), None)
        return changed

    def record_spawnerr(self, msg: str) -> None:
        """Keep why it does not start, with what to do about it."""
        if msg.startswith("too many open files"):
            msg += (
                f" (supervisord may have {self.config.options.minfds}): raise the limit "
                "(ulimit -n, LimitNOFILE=) of what starts supervisord, then start it anew"
            )
        super().record_spawnerr(msg)

    def write(self, chars: Any) -> None:
        """Write to the program's input. Raises OSError."""
        if not self.pid or self.killing:
            raise OSError(errno.EPIPE, "Process already closed")
        os.write(self.pipes["stdin"], as_bytes(chars))

    def _spawn_as_parent(self, pid: int) -> Any:
        # As the child does, whoever is first: it may be told to stop before it has come so far.
        with suppress(OSError):
            os.setpgid(pid, pid)
        return super()._spawn_as_parent(pid)

    def _prepare_child_fds(self) -> None:
        options = self.config.options
        os.dup2(self.pipes["child_stdin"], 0)
        os.dup2(self.pipes["child_stdout"], 1)
        os.dup2(self.pipes["child_stdout" if self.config.redirect_stderr else "child_stderr"], 2)
        os.closerange(3, options.minfds)  # one call of the kernel's, where there is close_range

    def set_uid(self) -> str | None:
        """Be bound by the limits of the partition, then become its user; return what failed."""
        options = self.config.options
        if options.usual_files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, options.usual_files)
        try:
            confine(layout_of(options), self.group.config.name)
        except (CgroupFailed, OSError) as error:
            # It runs all the same: a service that is down is worse. This goes to its log.
            options.write(2, f"its limits could not be set: {error}\n")
        return None if self.config.uid is None else _become(self.config.uid)


def _become(uid: int) -> str | None:
    """Become a user for good, with all its groups; return what failed.

    supervisor's own way reads every group of the machine into Python, for each start.
    """
    if os.getuid() == uid:
        return None
    try:
        account = pwd.getpwuid(uid)
        os.initgroups(account.pw_name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(uid)
    except (KeyError, OSError) as error:
        return str(error)
    return None


class ServiceConfig(ProcessConfig):  # type: ignore[misc]
    """A program's configuration; what most programs have in common is kept once."""

    umask = None
    priority = 999
    autostart = False
    autorestart = False
    startsecs = 0
    startretries = 0
    stdout_capture_maxbytes = 0
    stdout_events_enabled = False
    stdout_syslog = False
    stdout_logfile_backups = 1
    stdout_logfile_maxbytes = 100 * 1024
    stderr_logfile = None
    stderr_capture_maxbytes = 0
    stderr_logfile_backups = 10
    stderr_logfile_maxbytes = 50 * 1024 * 1024
    stderr_events_enabled = False
    stderr_syslog = False
    stopwaitsecs = 60
    stopasgroup = True
    killasgroup = True
    exitcodes = (0,)
    redirect_stderr = True
    serverurl = None

    def __init__(self, options: Any, **parameters: Any) -> None:
        self.options = options
        parameters["exitcodes"] = tuple(parameters["exitcodes"])
        for name, value in parameters.items():
            if name not in ServiceConfig.__dict__ or ServiceConfig.__dict__[name] != value:
                setattr(self, name, value)

    def make_process(self, group: Any = None) -> Service:
        """Return the process that this is the configuration of."""
        process = Service(self)
        process.group = group
        if self.autostart:
            self.options.passing[id(process)] = process
        return process

    def make_dispatchers(self, proc: Any) -> tuple[dict[int, Any], dict[str, int | None]]:
        """Return what reads the program's outputs, by descriptor, and all its pipes.

        Raises OSError.
        """
        pipes = self.options.make_pipes(not self.redirect_stderr)
        readers: dict[int, Any] = {}
        try:
            if max(fd for fd in pipes.values() if fd is not None) > self._last_descriptor():
                raise OSError(errno.EMFILE, "too many open files")
            for channel in CHANNELS:
                if (fd := pipes[channel]) is not None:
                    readers[fd] = self._make_reader(proc, channel, fd)
                    self.options.outputs.add(fd, readers[fd])
        except OSError:
            self.options.close_parent_pipes(pipes)
            self.options.close_child_pipes(pipes)
            raise
        return readers, pipes

    def _last_descriptor(self) -> int:
        return int(self.options.minfds) - RESERVED_FILES

    def _make_reader(self, process: Any, channel: str, fd: int) -> Any:
        special = ("capture_maxbytes", "events_enabled")
        if any(getattr(self, f"{channel}_{name}") for name in special) or getattr(
            self, f"{channel}_syslog"
        ):
            return POutputDispatcher(process, CHANNELS[channel], fd)
        return Output(process, channel, fd)
