"""`python -m slapos.node.supervise.supervisord`: supervisord, for a thousand programs.

It is supervisor's own, with the same configuration, calls and logs, but: it looks only at programs
that something happens to; the end of a child wakes it; the file of each group is read for itself,
and one that is not in order costs one group and not all; as many files may be open as are allowed.
"""

import io
import os
import re
import resource
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from supervisor import events
from supervisor import supervisord as original
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ProcessConfig, ServerOptions, decode_wait_status
from supervisor.process import EventListenerPool
from supervisor.states import SupervisorStates

from slapos.node.supervise.group_files import layout_of, read_groups
from slapos.node.supervise.service import Outputs, ServiceConfig

#: So many files may be open, where the hard limit allows it.
MOST_FILES = 65536
#: Seconds after which it looks around at the latest.
LONGEST_WAIT = 1.0
#: What the main file says of the files of groups, which are read one by one.
INCLUDE = re.compile(r"^\[include\].*?(?=^\[|\Z)", re.MULTILINE | re.DOTALL)
#: The signals that supervisord handles.
HANDLED = frozenset(
    (
        *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT),
        *(signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2),
    )
)
READABLE = select.POLLIN | select.POLLPRI


class Options(ServerOptions):  # type: ignore[misc]
    """What supervisord is told, and what its programs share."""

    #: The limits of open files (soft, hard) that programs get, where supervisord has others.
    usual_files: tuple[int, int] | None = None
    #: What the programs print.
    outputs: Outputs

    def __init__(self) -> None:
        super().__init__()
        #: Processes in a state that passes, by `id`.
        self.passing: dict[int, Any] = {}
        self._has_started = False

    def realize(self, *arguments: Any, **more: Any) -> None:
        """Read command line and files."""
        super().realize(*arguments, **more)
        self._has_started = True

    def read_config(self, fp: Any) -> Any:
        """Read the main file, then the groups' files. Raises ValueError.

        Once it runs, all must be in order, as what is missing would be stopped. When it starts, a
        group that is not in order is left out.
        """
        section = super().read_config(io.StringIO(INCLUDE.sub("", Path(fp).read_text())))
        for path in sorted(layout_of(self).supervisor_groups.glob("*.conf")):
            try:
                section.process_group_configs += read_groups(self, path)
            except ValueError as error:
                if self._has_started:
                    raise
                self.parse_criticals.append(f"left out: {error}")
        section.process_group_configs.sort()
        return section

    def processes_from_section(
        self, parser: Any, section: str, group_name: str, klass: Any = None
    ) -> Any:
        """Return the configurations of the programs of a section. Raises ValueError."""
        ours = ServiceConfig if klass in (None, ProcessConfig) else klass
        return super().processes_from_section(parser, section, group_name, ours)

    def allow_files(self) -> None:
        """Allow itself many open files; where not so many are allowed, it has to do with less."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < MOST_FILES:
            Options.usual_files = soft, hard
            try:  # only root may raise the hard limit
                resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_FILES, max(hard, MOST_FILES)))
            except (ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.minfds = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def fork(self) -> int:
        """Fork. A signal to the child is one to the program, also before it has become that.

        It would be taken by our handlers else, and be lost.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for number in HANDLED:
                    signal.signal(number, signal.SIG_DFL)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid

    def close_parent_pipes(self, pipes: Any) -> None:
        """Close our ends of the pipes of a process."""
        for channel in ("stdout", "stderr"):
            if (descriptor := pipes.get(channel)) is not None:
                self.outputs.remove(descriptor)
        super().close_parent_pipes(pipes)


class Supervisord(original.Supervisor):  # type: ignore[misc]
    """The loop: waits until something happens, and looks at what that is about."""

    stopping = False

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        #: Event listeners, which are looked at each time.
        self._pools: dict[str, Any] = {}

    def main(self) -> None:
        """Start, and work until told to end; ends with ExitNow."""
        self.options.allow_files()
        super().main()

    def add_process_group(self, config: Any) -> Any:
        """Add a group, and return whether it is new."""
        added = super().add_process_group(config)
        if isinstance(group := self.process_groups[config.name], EventListenerPool):
            self._pools[config.name] = group
        return added

    def remove_process_group(self, name: str) -> Any:
        """Remove a group, and return whether it had stopped."""
        removed = super().remove_process_group(name)
        if removed:
            self._pools.pop(name, None)
        return removed

    def runforever(self) -> None:
        """Work until told to end; ends with ExitNow."""
        self.options.outputs = Outputs()
        events.notify(events.SupervisorRunningEvent())
        try:
            with _woken_by_signals() as wake:
                while True:
                    self._work(wake)
        finally:
            self.options.outputs.close()

    def _work(self, wake: int) -> None:
        if self.options.mood < SupervisorStates.RUNNING:
            self._end()
        listening = self._listening()
        for descriptor, what in _wait(listening, wake, self.options.outputs.fileno()):
            _handle(listening[descriptor], what)
        self.options.outputs.read()
        self._move_on()
        self.reap()
        self.handle_signal()
        self.tick()
        if self.options.mood < SupervisorStates.RUNNING:
            self.ordered_stop_groups_phase_2()

    def _end(self) -> None:
        if not self.stopping:
            self.stopping = True
            self.stop_groups = sorted(self.process_groups.values())
            events.notify(events.SupervisorStoppingEvent())
        self.ordered_stop_groups_phase_1()
        if not self.shutdown_report():
            raise asyncore.ExitNow

    def ordered_stop_groups_phase_1(self) -> None:
        """Stop the groups whose turn it is, all at the same time."""
        for group in self.stop_groups or []:
            if group.config.priority == self.stop_groups[-1].config.priority:
                group.stop_all()

    def ordered_stop_groups_phase_2(self) -> None:
        """Forget the groups that have stopped."""
        self.stop_groups = [g for g in self.stop_groups or [] if g.get_unstopped_processes()]

    def _listening(self) -> dict[int, Any]:
        """Return what is looked at each time, by descriptor: who asks, and event listeners."""
        listening = dict(self.options.get_socket_map())
        for pool in self._pools.values():
            listening.update(pool.get_dispatchers())
        return listening

    def _move_on(self) -> None:
        """Have processes in passing states, and event listeners, go on."""
        for key, process in list(self.options.passing.items()):
            group = self.process_groups.get(process.group.config.name)
            if group is process.group and group.processes.get(process.config.name) is process:
                process.transition()
            else:  # it was replaced or removed meanwhile
                del self.options.passing[key]
        for pool in list(self._pools.values()):
            pool.transition()

    def reap(self, once: bool = False, recursionguard: int = 0) -> None:
        """Take notice of children that have ended, however many there are."""
        while True:
            pid, status = self.options.waitpid()
            if not pid:
                return
            process = self.options.pidhistory.pop(pid, None)
            if process is not None:
                process.finish(pid, status)
            else:
                self.options.logger.info(
                    f"reaped unknown pid {pid} ({decode_wait_status(status)[1]})"
                )
            if once:
                return


def _wait(listening: dict[int, Any], wake: int, outputs: int) -> list[tuple[int, int]]:
    """Wait until something is asked, printed or signalled; return who of `listening` can do what.

    Each is asked once what it wants: some answer otherwise when they are asked again.
    """
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    poll.register(outputs, select.POLLIN)
    timeout = LONGEST_WAIT
    wanted = {}
    for descriptor, dispatcher in listening.items():
        what = READABLE if dispatcher.readable() else 0
        if dispatcher.writable():
            what |= select.POLLOUT
        if what:
            wanted[descriptor] = what
            poll.register(descriptor, what)
        # An answer that is not ready is asked for again after `delay` seconds.
        timeout = min(timeout, getattr(dispatcher, "delay", 0) or LONGEST_WAIT)
    happened = poll.poll(timeout * 1000)
    with suppress(BlockingIOError):
        os.read(wake, 4096)
    return [
        (descriptor, wanted[descriptor] & what or wanted[descriptor])  # or it is broken
        for descriptor, what in happened
        if descriptor in wanted
    ]


def _handle(dispatcher: Any, what: int) -> None:
    try:
        if what & READABLE:
            dispatcher.handle_read_event()
        if what & select.POLLOUT:
            dispatcher.handle_write_event()
    except asyncore.ExitNow:
        raise
    except Exception:  # noqa: BLE001 - of one who asks, and must not end all programs
        dispatcher.handle_error()


@contextmanager
def _woken_by_signals() -> Iterator[int]:
    """Yield a descriptor that is readable after a signal, such as that of a child's end."""
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        yield wake
    finally:
        signal.set_wakeup_fd(before)
        os.close(wake)
        os.close(waker)


def main() -> None:
    """Work until told to end; told to begin anew, read all again."""
    is_first = True
    while True:
        options = Options()
        options.realize(doc=original.__doc__)
        options.first = is_first
        options.test = False
        with suppress(asyncore.ExitNow):
            Supervisord(options).main()
        options.close_httpservers()
        options.close_logger()
        is_first = False
        if options.mood < SupervisorStates.RESTARTING:
            return


if __name__ == "__main__":
    main()
