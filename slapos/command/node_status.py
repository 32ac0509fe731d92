"""Show the processes of the instances on this node.

exit status: 0 all that should run does, 3 something does not, 1 supervisord does not run
"""

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime
from fnmatch import fnmatch

from slapos.command.node_options import add_configuration, node_settings
from slapos.node.assembly import make_doors
from slapos.node.supervise.supervisor import Process

NOT_ALL_RUNNING = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_configuration(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("names", nargs="*", metavar="NAME", help="just GROUP:PROCESS or GROUP:*")


def run(arguments: argparse.Namespace) -> int:
    """Show them."""
    settings = node_settings(arguments)
    supervisor = make_doors(settings).supervisor
    if not settings.forbid_supervisord_automatic_launch:
        supervisor.ensure_running()
    processes = [p for p in supervisor.processes() if _is_asked(p, arguments.names)]
    if arguments.json:
        print(json.dumps([_document(process) for process in processes], indent=2))
    elif processes:
        print(_table(processes))
    else:
        print("there are no processes" if not arguments.names else "there is no such process")
        return 1 if arguments.names else 0
    return 0 if all(_is_well(process) for process in processes) else NOT_ALL_RUNNING


def _is_asked(process: Process, names: list[str]) -> bool:
    full = f"{process.group}:{process.name}"
    return not names or any(name in ("all", process.group) or fnmatch(full, name) for name in names)


def _is_well(process: Process) -> bool:
    """Return whether it runs, or was run once and came to a good end."""
    return process.is_running or (not process.is_down and process.state == "EXITED")


def _document(process: Process) -> dict[str, object]:
    return {**asdict(process), "since": _since(process)}


def _since(process: Process) -> str | None:
    moment = process.start if process.is_running else process.stop
    return datetime.fromtimestamp(moment, UTC).isoformat() if moment else None


def _table(processes: list[Process]) -> str:
    rows = [("PROCESS", "STATE", "SINCE", "PID")]
    for process in processes:
        pid = str(process.pid) if process.pid else "-"
        since = _since(process) or "never"
        rows.append((f"{process.group}:{process.name}", process.state, since, pid))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
