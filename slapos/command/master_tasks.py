"""Show what the master does by itself, straight from its database; the master need not be running.

A task is done as soon as something calls for it, and now and then for everything. With --run, one
looks at everything at once: a running master takes that up within seconds, else the next does.

examples:
  slapos master tasks
  slapos master tasks --json
  slapos master tasks --run forget_taken_reports
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from slapos.command.columns import aligned, plain
from slapos.command.master_options import add_master_arguments, opened_master

if TYPE_CHECKING:
    from slapos.master.tasks.service import TaskStatus

HEADER = ("TASK", "LAST RUN", "TOOK", "DID", "WAITING", "NEXT", "FAILURES")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_master_arguments(parser)
    parser.add_argument("--run", metavar="TASK", help="have this task look at everything at once")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Show the tasks, or have one done."""
    from slapos.master.tasks import service  # noqa: PLC0415 - not for `--help`

    with opened_master(arguments) as master:
        now, profile = master.clock.now(), master.settings.profile
        if arguments.run:
            master.write(lambda session: service.request_run(session, arguments.run, profile))
        found = master.read(lambda session: service.statuses(session, now, profile))
    if arguments.json:
        print(json.dumps({"tasks": [document(each) for each in found]}, indent=2))
    else:
        print("\n".join(lines(found, now)))
    return 0


def document(status: "TaskStatus") -> dict[str, Any]:
    """Return what is said of a task in JSON; times are in ISO 8601."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(status).items()
    }


def lines(statuses: Sequence["TaskStatus"], now: datetime) -> list[str]:
    """Return the table of tasks, and below it why those failed that have not gone well since."""
    rows: list[tuple[str, ...]] = [HEADER]
    for status in statuses:
        due = status.next_at
        rows.append(
            (
                status.name,
                _shown(status.began_at) if status.began_at else "never",
                f"{status.seconds:.1f} s" if status.began_at else "-",
                str(status.done),
                str(status.waiting),
                "when sensed" if due is None else "now" if due <= now else _shown(due),
                str(status.failures or "-"),
            )
        )
    failed = [
        f"{status.name} failed at {_shown(status.failed_at)}: {plain(status.error)}"
        for status in statuses
        if status.failures and status.failed_at
    ]
    return [*aligned(rows), *failed]


def _shown(moment: datetime) -> str:
    return moment.replace(microsecond=0).isoformat()
