"""Speaking with supervisord: XML-RPC over its unix socket."""

import http.client
import logging
import os
import socket
import xmlrpc.client
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from supervisor.xmlrpc import Faults

from slapos.node.layout import Layout
from slapos.node.supervise.configuration import (
    WATCHED,
    Program,
    find_programs,
    log_name,
    render_group,
    write_main,
)
from slapos.node.supervise.orphans import end_orphans
from slapos.node.supervise.output import link_output, make_output_folder
from slapos.node.supervise.watchdog import WATCHDOG, section
from slapos.node.users import Account
from slapos.protocol.errors import SlapOSError
from slapos.system.clock import Clock
from slapos.system.files import write_if_changed
from slapos.system.runner import CommandFailed, Runner

logger = logging.getLogger(__name__)

#: Seconds that supervisord gets to answer a call.
ANSWER_TIME = 30.0
#: Seconds that supervisord gets to start or to end.
START_TIME = 20.0
#: Seconds that the processes of a group get to end; supervisord kills them after 60.
STOP_TIME = 75.0
POLL = 0.05
#: States of a process that ended on its own.
ENDED = ("EXITED", "FATAL", "UNKNOWN", "BACKOFF")
RUNNING = ("RUNNING", "STARTING")


class SupervisorFailed(SlapOSError):
    """supervisord does not run, or did not do what was asked of it."""

    code = "supervisor_failed"


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process as supervisord sees it; `start`, `stop` are in seconds since 1970, 0 if never."""

    group: str
    name: str
    state: str
    pid: int
    start: int
    stop: int
    exit_status: int
    description: str

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self.state in RUNNING

    @property
    def is_down(self) -> bool:
        """Whether it should run again: it ended on its own, or was not started yet.

        One that a person stopped stays so, and so does a program of etc/run that has ended.
        """
        if self.state == "STOPPED":
            return self.start == 0 and self.stop == 0
        return self.state in ENDED and self.name.endswith(WATCHED)


class Supervisor:
    """The supervisord of this node."""

    def __init__(
        self,
        layout: Layout,
        runner: Runner,
        clock: Clock,
        *,
        python: str,
        environment: Mapping[str, str],
        watchdog: Sequence[str] = (),
    ) -> None:
        """`watchdog` is the command line of the event listener, none for none."""
        self._layout = layout
        self._watchdog = watchdog
        self._runner = runner
        self._clock = clock
        self._python = python
        self._environment = {
            name: value for name, value in environment.items() if name in ("PATH", "LANG", "TZ")
        }
        self._server = xmlrpc.client.ServerProxy(
            "http://127.0.0.1", transport=_Transport(layout.supervisor_socket), allow_none=True
        )

    # supervisord itself.

    @property
    def command(self) -> list[str]:
        """Return how supervisord is started."""
        configuration = str(self._layout.supervisor_configuration)
        return [self._python, "-m", "supervisor.supervisord", "-c", configuration]

    @property
    def environment(self) -> dict[str, str]:
        """Return what supervisord, and all that it starts, sees of the environment."""
        return self._environment

    def is_running(self) -> bool:
        """Return whether supervisord answers and is at work."""
        return self._state() == "RUNNING"

    def ensure_running(self) -> None:
        """Start supervisord unless it runs. Raises SupervisorFailed."""
        write_main(self._layout)
        if self._watchdog:
            text = section(self._watchdog, self._layout.instance_root)
            write_if_changed(self._file(WATCHDOG), text, mode=0o600)
        self._wait_while("SHUTDOWN", "RESTARTING")
        if self.is_running():
            with _understood():
                self._reload(WATCHDOG)
            return
        end_orphans(self._layout.supervisor_socket, self._layout.supervisor_pid_file, self._clock)
        logger.info("starting supervisord")
        output = ""
        try:
            output = self._runner.run(
                self.command,
                cwd=self._layout.instance_root,
                environment=self._environment,
                timeout=START_TIME,
                check=False,
            ).output
        except CommandFailed as error:
            output = f"{error} {error.output}"
        # Another command may have started it at the same moment: what counts is that it answers.
        self._wait_while(None)
        if not self.is_running():
            raise SupervisorFailed(
                f"supervisord does not start: {output.strip() or 'it gives no reason'}; see "
                f"{self._layout.instance_root}/var/log/supervisord.log"
            )

    def _wait_while(self, *states: str | None) -> None:
        deadline = self._clock.monotonic() + START_TIME
        while self._state() in states and self._clock.monotonic() < deadline:
            self._clock.sleep(POLL)

    def _state(self) -> str | None:
        try:
            with _understood():
                return str(self._server.supervisor.getState()["statename"])  # type: ignore[index,call-overload]
        except SupervisorFailed:
            return None

    # Processes.

    def processes(self) -> list[Process]:
        """Return all processes. Raises SupervisorFailed."""
        with _understood():
            return [
                Process(
                    group=item["group"],
                    name=item["name"],
                    state=item["statename"],
                    pid=item["pid"],
                    start=item["start"],
                    stop=item["stop"],
                    exit_status=item["exitstatus"],
                    description=item["description"],
                )
                for item in cast(list[dict[str, Any]], self._server.supervisor.getAllProcessInfo())
            ]

    def start_ended(self, groups: Collection[str] | None = None) -> list[Process]:
        """Start what ended on its own or was not started yet; return what that was."""
        started = []
        for process in self.processes():
            if process.is_down and (groups is None or process.group in groups):
                self._start(process.group, process.name)
                started.append(process)
        return started

    def _start(self, group: str, name: str) -> None:
        try:
            self._server.supervisor.startProcess(f"{group}:{name}", False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == Faults.ALREADY_STARTED:
                return
            # It stays down: that is for the promises to find, and must not stop the others.
            logger.warning("%s:%s does not start: %s", group, name, fault.faultString)

    def start(self, group: str, name: str) -> None:
        """Start a process unless it runs; one that cannot be started is warned of.

        Raises SupervisorFailed.
        """
        with _understood():
            self._start(group, name)

    # Groups: the programs of a partition.

    def run_partition(self, reference: str, directory: Path, account: Account) -> None:
        """Have all programs of a partition running; only those that changed are restarted.

        Raises SupervisorFailed, InvalidConfiguration.
        """
        programs = find_programs(directory)
        if programs:
            self.run_group(reference, programs, directory, account)
        else:
            logger.info("%s: it has no services", reference)
            self.stop_partition(reference)

    def run_group(
        self, group: str, programs: list[Program], directory: Path, account: Account
    ) -> None:
        """Have these programs running as a group. Raises SupervisorFailed, InvalidConfiguration."""
        output = self._layout.output(group)
        text = render_group(group, programs, directory, output, account)
        make_output_folder(output, account)
        for program in programs:
            link_output(directory, output / log_name(group, program))
        write_if_changed(self._file(group), text, mode=0o600)
        with _understood():
            self._reload(group)
            for process in self.processes():
                if process.group == group and not process.is_running:
                    self._start(process.group, process.name)

    def stop_partition(self, reference: str) -> None:
        """Have no program of a partition running, now and after a reboot."""
        self._file(reference).unlink(missing_ok=True)
        with _understood():
            self._reload(reference)

    def _file(self, reference: str) -> Path:
        return self._layout.supervisor_groups / f"{reference}.conf"

    def _reload(self, group: str) -> None:
        """Have supervisord take over what the configuration files say of one group."""
        [[added, changed, removed]] = cast(
            list[list[list[str]]], self._server.supervisor.reloadConfig()
        )
        if group in added:
            self._server.supervisor.addProcessGroup(group)
        elif group in changed:
            self._until_none(lambda: cast(list[str], self._server.slapos.updateGroup(group)), group)
        elif group in removed:
            self._server.supervisor.stopProcessGroup(group, False)
            self._until_none(lambda: self._unstopped(group), group)
            self._server.supervisor.removeProcessGroup(group)

    def _unstopped(self, group: str) -> list[str]:
        return [
            process.name
            for process in self.processes()
            if process.group == group and (process.is_running or process.state == "STOPPING")
        ]

    def _until_none(self, names: Callable[[], list[str]], group: str) -> None:
        deadline = self._clock.monotonic() + STOP_TIME
        while left := names():
            if self._clock.monotonic() > deadline:
                raise SupervisorFailed(f"{group}: {', '.join(left)} cannot be stopped")
            self._clock.sleep(POLL)


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except xmlrpc.client.Fault as fault:
        raise SupervisorFailed(f"supervisord refused: {fault.faultString}") from fault
    except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
        raise SupervisorFailed(
            f"supervisord does not answer: {error}; start it with 'slapos node supervisord'"
        ) from error


class _Transport(xmlrpc.client.Transport):
    """XML-RPC over a unix socket, with a time limit."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _UnixConnection(os.fspath(self._path))
        self._connection = (host, connection)
        return connection

    def single_request(self, *arguments: Any, **more: Any) -> Any:
        """Ask, and close the connection: a new one costs nothing, and supervisord may restart."""
        try:
            return super().single_request(*arguments, **more)
        finally:
            self.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_TIME)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_TIME)
        self.sock.connect(self._path)
