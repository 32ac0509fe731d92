"""Speaking with supervisord: XML-RPC over its unix socket."""

import http.client
import logging
import xmlrpc.client
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from supervisor.xmlrpc import Faults

from slapos.node.layout import WATCHED, Layout
from slapos.node.supervise.configuration import (
    END,
    Program,
    find_programs,
    log_name,
    render_group,
    write_main,
)
from slapos.node.supervise.connection import UnixTransport
from slapos.node.supervise.orphans import end_orphans
from slapos.node.supervise.output import link_output, make_output_folder
from slapos.node.supervise.watchdog import WATCHDOG, section
from slapos.node.users import Account
from slapos.protocol.errors import SlapOSError
from slapos.system.clock import Clock
from slapos.system.files import write_if_changed
from slapos.system.process_lock import process_lock
from slapos.system.runner import CommandFailed, Runner

logger = logging.getLogger(__name__)

#: Seconds that supervisord gets to start or to end.
START_TIME = 20.0
#: Seconds that the processes of a group get to end; supervisord kills them after 60.
STOP_TIME = 75.0
POLL = 0.05
#: So many processes are started with one call; supervisord does nothing else meanwhile.
BATCH = 20
#: States of a process that ended on its own.
ENDED = ("EXITED", "FATAL", "UNKNOWN", "BACKOFF")
RUNNING = ("RUNNING", "STARTING")
#: What makes the supervisord that runs the one of this SlapOS.
RENEWAL = "'slapos node supervisorctl shutdown', then 'slapos node supervisord'"


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
        #: Whether the supervisord that runs is known to have our calls.
        self._has_calls = False
        self._server = xmlrpc.client.ServerProxy(
            "http://127.0.0.1", transport=UnixTransport(layout.supervisor_socket), allow_none=True
        )

    # supervisord itself.

    @property
    def command(self) -> list[str]:
        """Return how supervisord is started."""
        configuration = str(self._layout.supervisor_configuration)
        return [self._python, "-P", "-m", "slapos.node.supervise.supervisord", "-c", configuration]

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
            if self._watchdog:
                with _understood():
                    self._load(WATCHDOG)
            return
        # One at a time: another one would take the services of this supervisord for orphans.
        with process_lock(self._layout.default_pidfile("supervisor"), patience=2 * START_TIME):
            if not self.is_running():
                self._begin()

    def _begin(self) -> None:
        """Start supervisord, after what an earlier one has left. Raises SupervisorFailed."""
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
            return _processes(self._server.supervisor.getAllProcessInfo())

    def group_processes(self, group: str) -> list[Process]:
        """Return the processes of a group, none where there is none. Raises SupervisorFailed."""
        with _understood():
            if self._is_outdated():
                return [process for process in self.processes() if process.group == group]
            return _processes(self._server.slapos.groupProcesses(group))

    def start_ended(self, groups: Collection[str] | None = None) -> list[Process]:
        """Start what ended on its own or was not started yet; return what that was."""
        ended = [
            process
            for process in self.processes()
            if process.is_down and (groups is None or process.group in groups)
        ]
        self.start((process.group, process.name) for process in ended)
        return ended

    def start(self, names: Iterable[tuple[str, str]]) -> None:
        """Start processes (group, name) unless they run; what cannot be started is warned of.

        Raises SupervisorFailed.
        """
        waiting = list(names)
        while batch := waiting[:BATCH]:
            del waiting[:BATCH]
            calls = [
                {"methodName": "supervisor.startProcess", "params": [f"{group}:{name}", False]}
                for group, name in batch
            ]
            with _understood():
                results = cast(list[Any], self._server.system.multicall(calls))
            for (group, name), result in zip(batch, results, strict=True):
                # It stays down: that is for the promises to find, and must not stop the others.
                if isinstance(result, dict) and result["faultCode"] != Faults.ALREADY_STARTED:
                    _warn(group, name, result["faultString"])

    def stay_stopped(self, name: str) -> list[str]:
        """Have nobody start what ended on its own; `name` is `group:process`, `group:*` or `all`.

        Returns the names of those processes. Raises SupervisorFailed.
        """
        with _understood():
            if self._is_outdated():
                return []
            return cast(list[str], self._server.slapos.stayStopped(name))

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
            self._load(group)
            self._start_group(group)

    def _start_group(self, group: str) -> None:
        if self._is_outdated():
            self.start((group, p.name) for p in self.group_processes(group) if not p.is_running)
            return
        for name, reason in cast(list[tuple[str, str]], self._server.slapos.startGroup(group)):
            _warn(group, name, reason)

    def has_file(self, reference: str, directory: Path) -> bool:
        """Return whether what supervisord reads of a partition is there, and whole."""
        try:
            return self._file(reference).read_bytes().endswith(END.encode())
        except FileNotFoundError:
            return not find_programs(directory)

    def stop_partition(self, reference: str) -> None:
        """Have no program of a partition running, now and after a reboot."""
        self._file(reference).unlink(missing_ok=True)
        with _understood():
            if self._is_outdated():
                self._reload_all(reference)
            else:
                self._until_none(self._server.slapos.removeGroup, reference)

    def _file(self, reference: str) -> Path:
        return self._layout.supervisor_groups / f"{reference}.conf"

    def _load(self, group: str) -> None:
        """Have supervisord take over what the configuration file of a group says."""
        if self._is_outdated():
            self._reload_all(group)
        else:
            self._until_none(self._server.slapos.loadGroup, group)

    # What follows is for a supervisord of before `loadGroup`, which goes on running when SlapOS is
    # upgraded: to end it would be to end all services.

    def is_outdated(self) -> bool:
        """Return whether the supervisord that runs is older than this SlapOS and lacks its calls.

        Raises SupervisorFailed.
        """
        with _understood():
            return self._is_outdated()

    def _is_outdated(self) -> bool:
        if not self._has_calls:
            methods = cast(list[str], self._server.system.listMethods())
            self._has_calls = "slapos.loadGroup" in methods
            if not self._has_calls:
                _tell_of_outdated(self._layout.supervisor_socket)
        return not self._has_calls

    def _reload_all(self, group: str) -> None:
        """Have supervisord read all files, and take over what they say of one group."""
        [[added, changed, removed]] = cast(
            list[list[list[str]]], self._server.supervisor.reloadConfig()
        )
        if group in added:
            self._server.supervisor.addProcessGroup(group)
        elif group in changed:
            self._until_none(self._server.slapos.updateGroup, group)
        elif group in removed:
            self._server.supervisor.stopProcessGroup(group, False)
            self._until_none(self._unstopped, group)
            self._server.supervisor.removeProcessGroup(group)

    def _unstopped(self, group: str) -> list[str]:
        return [
            process.name
            for process in self.group_processes(group)
            if process.is_running or process.state == "STOPPING"
        ]

    def _until_none(self, names: Callable[[str], Any], group: str) -> None:
        """Ask until no process of the group is still stopping. Raises SupervisorFailed."""
        deadline = self._clock.monotonic() + STOP_TIME
        while left := cast(list[str], names(group)):
            if self._clock.monotonic() > deadline:
                raise SupervisorFailed(f"{group}: {', '.join(left)} cannot be stopped")
            self._clock.sleep(POLL)


def _processes(answer: Any) -> list[Process]:
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
        for item in cast(list[dict[str, Any]], answer)
    ]


def _warn(group: str, name: str, reason: str) -> None:
    logger.warning("%s:%s does not start: %s", group, name, reason)


@cache
def _tell_of_outdated(socket: Path) -> None:
    logger.warning(
        "the supervisord at %s is older than this SlapOS: what it does takes longer, and more so "
        "the more partitions there are; when its services may be restarted: %s",
        socket,
        RENEWAL,
    )


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except xmlrpc.client.Fault as fault:
        raise SupervisorFailed(f"supervisord refused: {fault.faultString}") from fault
    except PermissionError as error:
        raise SupervisorFailed(
            "supervisord answers none but the user who runs this node: ask as that user"
        ) from error
    except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
        raise SupervisorFailed(
            f"supervisord does not answer: {error}; start it with 'slapos node supervisord'"
        ) from error
