"""Show how the instances on this node do, or their processes.

First how the node itself does, then a line for each partition in use, what is wrong first: its
instance, its state (failed, waiting, down: a service ended, unhealthy: a promise fails; else what
is wanted), processes that run of all, promises that hold and that fail, what it used in the last
minute, when a process last started or ended, and why the last attempt failed. With names, or
--processes, a line for each process. Nothing is changed.

examples:
  slapos node status
  slapos node status --watch --failing
  slapos node status --processes
  slapos node status slappart0:*

exit status: 0 all that should run does, 3 something does not, 1 supervisord cannot be asked
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from fnmatch import fnmatch
from typing import Any

from slapos.command.columns import plain
from slapos.command.node_options import add_configuration, node_settings
from slapos.command.screen import Screen, size_of
from slapos.command.status_table import (
    count_line,
    partition_document,
    partition_lines,
    process_document,
    process_lines,
    shown,
)
from slapos.node.agent.kept import read_kept
from slapos.node.assembly import make_doors
from slapos.node.condition import SILENCE, NodeCondition, read_condition
from slapos.node.doors import Doors
from slapos.node.overview import PartitionStatus, Seen, partition_statuses
from slapos.node.supervise.supervisor import Process
from slapos.protocol.errors import InvalidConfiguration, SlapOSError
from slapos.protocol.messages import NodeInformation

NOT_ALL_RUNNING = 3
#: Seconds between two looks with --watch.
INTERVAL = 1.0
#: Seconds that the master may be silent: without it, titles are missing.
PATIENCE = 5.0
#: So many looks share one answer of the master.
LOOKS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_configuration(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--processes", action="store_true", help="each process")
    parser.add_argument("--failing", action="store_true", help="just what is wrong")
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    parser.add_argument("names", nargs="*", metavar="NAME", help="just GROUP:PROCESS or GROUP:*")


def run(arguments: argparse.Namespace) -> int:
    """Show them."""
    settings = node_settings(arguments)
    if arguments.json and arguments.watch:
        raise InvalidConfiguration("--json shows what there is now: leave out --watch")
    patience = min(settings.request_timeout, PATIENCE)
    doors = make_doors(replace(settings, request_timeout=patience))
    if arguments.watch:
        return _watch(doors, arguments)
    if arguments.processes or arguments.names:
        return _show_processes(doors, arguments)
    look = Look(doors, failing=arguments.failing)
    look.take()
    if arguments.json:
        print(json.dumps(look.document(), indent=2))
    else:
        print("\n".join(look.lines()))
    if look.processes is None:
        return 1
    return 0 if all(_is_well(process) for process in look.processes) else NOT_ALL_RUNNING


def _show_processes(doors: Doors, arguments: argparse.Namespace) -> int:
    processes = _asked(doors, arguments.names)
    if arguments.json:
        print(json.dumps([process_document(process) for process in processes], indent=2))
    else:
        print("\n".join(process_lines(processes, arguments.names)))
    if arguments.names and not processes:
        return 1
    return 0 if all(_is_well(process) for process in processes) else NOT_ALL_RUNNING


def _watch(doors: Doors, arguments: argparse.Namespace) -> int:
    screen = Screen(sys.stdout, lambda: size_of(sys.stdout)) if sys.stdout.isatty() else None
    look = Look(doors, failing=arguments.failing)
    try:
        while True:
            lines = [doors.clock.now().isoformat(timespec="seconds")]
            if arguments.processes or arguments.names:
                try:
                    lines += process_lines(_asked(doors, arguments.names), arguments.names)
                except SlapOSError as error:
                    lines.append(str(error))
            else:
                look.take()
                lines += look.lines()
            if screen is not None:
                screen.draw(lines)
            else:
                print("\n".join([*lines, ""]), flush=True)
            doors.clock.sleep(INTERVAL)
    except KeyboardInterrupt:
        return 0


class Look:
    """What there is to see of the node and its partitions, and what could not be seen."""

    def __init__(self, doors: Doors, *, failing: bool) -> None:
        self.processes: list[Process] | None = None
        self._doors = doors
        self._failing = failing
        self._looks = 0
        self._known: NodeInformation | None = None
        self._master_trouble = ""
        self._trouble: list[str] = []
        self._seen: Seen = {}
        self._statuses: list[PartitionStatus] = []
        self._condition = NodeCondition()

    def take(self) -> None:
        """Look."""
        doors = self._doors
        self._condition, trouble = read_condition(doors)
        if self._looks % LOOKS == 0:
            self._seen.clear()  # two changes within a tick of the clock look like one
            self._ask_master()
        self._looks += 1
        self._trouble = [self._master_trouble] if self._master_trouble else []
        try:
            self.processes = doors.supervisor.processes()
        except SlapOSError as error:
            self.processes = None
            self._trouble.append(str(error))
        self._trouble += trouble
        self._statuses = partition_statuses(
            doors.settings.layout, self.processes, self._known, self._condition.usages, self._seen
        )

    def _ask_master(self) -> None:
        """Find out what is wanted: from the agent, which keeps what the master said last."""
        settings = self._doors.settings
        kept = read_kept(settings.layout.kept_information) if self._condition.agent else None
        if kept is not None:
            self._known, self._master_trouble = kept[1], ""
            return
        try:
            self._known = self._doors.client.node_information(settings.computer_id)
            self._master_trouble = ""
        except SlapOSError as error:
            self._known, self._master_trouble = None, f"without the master: {plain(str(error))}"

    def _agent_line(self) -> str:
        node = self._condition
        if node.agent_is_hidden:
            return "agent: whether it runs can be seen by the node's own user only"
        if not node.agent:
            return "agent: does not run"
        line = f"agent: runs, process {node.agent}"
        if node.master_answered is None:
            return f"{line}; the master has not answered it yet"
        answered = shown(node.master_answered)
        if self._doors.now() - node.master_answered > SILENCE:
            return f"{line}; the master has not answered since {answered}"
        return f"{line}; the master answered at {answered}"

    def _certificate_lines(self) -> list[str]:
        end = self._condition.certificate_ends
        if end is None:
            return []
        if end < self._doors.now():
            return [f"certificate: has expired at {shown(end)}; see 'slapos node doctor'"]
        return [f"certificate: until {shown(end)}"]

    @property
    def _shown(self) -> list[PartitionStatus]:
        return [one for one in self._statuses if not (self._failing and one.is_well)]

    def lines(self) -> list[str]:
        """Return it for people."""
        node = self._condition
        lines = [self._agent_line(), *self._certificate_lines(), *self._trouble]
        if node.reports_waiting:
            since = shown(node.reports_since)
            lines.append(f"{node.reports_waiting} reports wait for the master since {since}")
        if not self._statuses:
            said = "no partition is in use; 'slapos node status --processes' shows all processes"
            return [*lines, said]
        lines.append(count_line(self._statuses))
        if self._shown:
            lines += partition_lines(self._shown, self._doors.now())
        return lines

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        condition = asdict(self._condition)
        del condition["usages"]
        names = ("master_answered", "certificate_ends", "reports_since", "measured_at")
        times = {name: shown(condition[name]) for name in names}
        return {
            "node": {**condition, **times, "trouble": self._trouble},
            "partitions": [partition_document(one) for one in self._shown],
        }


def _asked(doors: Doors, names: list[str]) -> list[Process]:
    return [one for one in doors.supervisor.processes() if _is_asked(one, names)]


def _is_asked(process: Process, names: list[str]) -> bool:
    full = f"{process.group}:{process.name}"
    return not names or any(name in ("all", process.group) or fnmatch(full, name) for name in names)


def _is_well(process: Process) -> bool:
    """Return whether it runs, or was run once and came to a good end."""
    return process.is_running or (not process.is_down and process.state == "EXITED")
