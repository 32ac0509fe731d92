"""Show how the instances on this node do, or their processes.

Without names, a line for each partition in use: its instance, its state (failed, waiting, down: a
service ended, unhealthy: a promise fails; else what is wanted), processes that run of all, promises
that hold and that fail, when a process last started or ended, and why the last attempt failed.
With names, or --processes, a line for each process.

examples:
  slapos node status
  slapos node status --watch
  slapos node status --processes
  slapos node status slappart0:*

exit status: 0 all that should run does, 3 something does not, 1 supervisord does not run
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from fnmatch import fnmatch

from slapos.command.node_options import add_configuration, node_settings
from slapos.command.screen import Screen, size_of
from slapos.node.assembly import make_doors
from slapos.node.doors import Doors
from slapos.node.overview import PartitionStatus, partition_statuses, short_release
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
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    parser.add_argument("names", nargs="*", metavar="NAME", help="just GROUP:PROCESS or GROUP:*")


def run(arguments: argparse.Namespace) -> int:
    """Show them."""
    settings = node_settings(arguments)
    if arguments.json and arguments.watch:
        raise InvalidConfiguration("--json shows what there is now: leave out --watch")
    patience = min(settings.request_timeout, PATIENCE)
    doors = make_doors(replace(settings, request_timeout=patience))
    if not settings.forbid_supervisord_automatic_launch:
        doors.supervisor.ensure_running()
    if arguments.watch:
        return _watch(doors, arguments)
    processes = _asked(doors, arguments)
    if arguments.processes or arguments.names:
        if arguments.json:
            print(json.dumps([_document(process) for process in processes], indent=2))
        else:
            print("\n".join(_process_lines(processes, arguments.names)))
        if arguments.names and not processes:
            return 1
    else:
        known, trouble = ask_master(doors)
        statuses = partition_statuses(settings.layout, processes, known)
        if trouble:
            print(f"without the master: {trouble}", file=sys.stderr)
        if arguments.json:
            print(json.dumps([_partition_document(status) for status in statuses], indent=2))
        else:
            print("\n".join([*waiting_lines(doors), *partition_lines(statuses)]))
    return 0 if all(_is_well(process) for process in processes) else NOT_ALL_RUNNING


def _watch(doors: Doors, arguments: argparse.Namespace) -> int:
    screen = Screen(sys.stdout, lambda: size_of(sys.stdout)) if sys.stdout.isatty() else None
    look, known, trouble = 0, None, ""
    try:
        while True:
            if look % LOOKS == 0 and not (arguments.processes or arguments.names):
                known, trouble = ask_master(doors)
            look += 1
            lines = [doors.clock.now().isoformat(timespec="seconds")]
            if trouble:
                lines.append(f"without the master: {trouble}")
            try:
                processes = _asked(doors, arguments)
            except SlapOSError as error:
                lines.append(str(error))
            else:
                if arguments.processes or arguments.names:
                    lines += _process_lines(processes, arguments.names)
                else:
                    layout = doors.settings.layout
                    lines += waiting_lines(doors)
                    lines += partition_lines(partition_statuses(layout, processes, known))
            if screen is not None:
                screen.draw(lines)
            else:
                print("\n".join([*lines, ""]), flush=True)
            doors.clock.sleep(INTERVAL)
    except KeyboardInterrupt:
        return 0


def ask_master(doors: Doors) -> tuple[NodeInformation | None, str]:
    """Return what the master wants of this node, or why that is not known."""
    try:
        return doors.client.node_information(doors.settings.computer_id), ""
    except SlapOSError as error:
        return None, _plain(str(error))


def waiting_lines(doors: Doors) -> list[str]:
    """Return a line on the reports that the master has not got yet, if there are any."""
    try:
        waiting = doors.reports.waiting()
    except SlapOSError as error:  # 'node doctor' says more
        return [str(error)]
    if waiting.since is None:
        return []
    since = waiting.since.isoformat(timespec="seconds")
    return [f"{waiting.count} reports wait for the master since {since}"]


def partition_lines(statuses: Sequence[PartitionStatus]) -> list[str]:
    """Return the table of partitions."""
    if not statuses:
        return ["no partition is in use; 'slapos node status --processes' shows all processes"]
    header = ("PARTITION", "INSTANCE", "RELEASE", "STATE", "PROCESSES", "PROMISES", "SINCE")
    rows = [(*header, "LAST ERROR")]
    for one in statuses:
        failed = f", {one.promises_failed} failed" if one.promises_failed else ""
        rows.append(
            (
                one.partition,
                "?" if one.title is None else _plain(one.title),
                _plain(short_release(one.release)) or "-",
                one.state,
                f"{one.running}/{one.processes}",
                f"{one.promises_kept} ok{failed}",
                _shown(one.since) or "never",
                _plain(one.error),
            )
        )
    return _table(rows)


def _asked(doors: Doors, arguments: argparse.Namespace) -> list[Process]:
    names = arguments.names
    return [one for one in doors.supervisor.processes() if _is_asked(one, names)]


def _is_asked(process: Process, names: list[str]) -> bool:
    full = f"{process.group}:{process.name}"
    return not names or any(name in ("all", process.group) or fnmatch(full, name) for name in names)


def _is_well(process: Process) -> bool:
    """Return whether it runs, or was run once and came to a good end."""
    return process.is_running or (not process.is_down and process.state == "EXITED")


def _document(process: Process) -> dict[str, object]:
    return {**asdict(process), "since": _since(process)}


def _partition_document(status: PartitionStatus) -> dict[str, object]:
    return {**asdict(status), "since": _shown(status.since)}


def _since(process: Process) -> str | None:
    return _shown(process.start if process.is_running else process.stop)


def _shown(moment: int) -> str | None:
    return datetime.fromtimestamp(moment, UTC).isoformat() if moment else None


def _plain(text: str) -> str:
    """Return one line without anything that moves the cursor: customers choose titles."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _process_lines(processes: list[Process], names: list[str]) -> list[str]:
    if not processes:
        return ["there are no processes" if not names else "there is no such process"]
    rows = [("PROCESS", "STATE", "SINCE", "PID")]
    for process in processes:
        pid = str(process.pid) if process.pid else "-"
        since = _since(process) or "never"
        rows.append((f"{process.group}:{process.name}", process.state, since, pid))
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
