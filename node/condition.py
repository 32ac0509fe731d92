"""How the node itself does: its agent, what it measured, and what the master does not know yet."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slapos.node.doors import Doors
from slapos.node.enrolment.node_certificate import end_of_certificate
from slapos.node.layout import Layout
from slapos.node.monitor.database import StoreFailed
from slapos.node.monitor.history import History
from slapos.node.monitor.usage import Usage
from slapos.node.report.journal import JournalFailed

#: Seconds after which a sample says nothing of now.
STALE = 600.0
#: Seconds without an answer to the agent after which the master counts as silent.
SILENCE = 120.0
_LOCKS = Path("/proc/locks")


@dataclass(frozen=True, kw_only=True)
class NodeCondition:
    """How it does. Times are in seconds since 1970.

    `agent` is the process of the agent, None when it does not run, or that cannot be seen
    (`agent_is_hidden`);
    `master_answered` is when the master last answered it, `certificate_ends` when the node's own
    certificate does, None where it has none. `usages` is the last sample, which was
    `measured_at`; None when there is none of late.
    """

    agent: int | None = None
    agent_is_hidden: bool = False
    master_answered: float | None = None
    certificate_ends: float | None = None
    reports_waiting: int | None = None
    reports_since: float | None = None
    measured_at: float | None = None
    usages: Mapping[str, Usage] = field(default_factory=dict)


def read_condition(doors: Doors) -> tuple[NodeCondition, list[str]]:
    """Return how the node does, and what of it could not be seen."""
    layout = doors.settings.layout
    trouble: list[str] = []
    measured_at: int = 0
    usages: Mapping[str, Usage] = {}
    waiting, since = None, None
    try:
        measured_at, usages = History(layout.measurements).last_usages()
    except (StoreFailed, OSError) as error:
        trouble.append(f"what is used is not known: {error}")
    if not abs(doors.now() - measured_at) < STALE:
        measured_at, usages = 0, {}
    try:
        reports = doors.reports.waiting()
        waiting = reports.count
        since = reports.since.timestamp() if reports.since is not None else None
    except (JournalFailed, OSError) as error:
        trouble.append(str(error))
    condition = NodeCondition(
        agent=lock_holder(layout.agent_pidfile),
        agent_is_hidden=is_hidden(layout.agent_pidfile),
        master_answered=last_answer(layout),
        certificate_ends=end_of_certificate(doors.settings),
        reports_waiting=waiting,
        reports_since=since,
        measured_at=measured_at or None,
        usages=usages,
    )
    return condition, trouble


def last_answer(layout: Layout) -> float | None:
    """Return when the master last answered the agent, None when it never has."""
    try:
        return layout.last_answer.stat().st_mtime
    except OSError:
        return None


def is_hidden(path: Path) -> bool:
    """Return whether a lock file is there that this user may not read."""
    try:
        path.stat()
    except PermissionError:  # not even its folder may be looked into
        return True
    except OSError:
        return False
    return not os.access(path, os.R_OK)


def lock_holder(path: Path, locks: Path = _LOCKS) -> int | None:
    """Return the process that holds a lock file, None when nobody does or it cannot be seen.

    The lock is not tried: whoever wants to take it at the same moment would find it taken.
    """
    try:
        pid, inode = path.read_text().strip(), str(path.stat().st_ino)
        held = [line.split() for line in locks.read_text().splitlines()]
    except OSError:
        return None
    for words in held:
        if words[1] == "FLOCK" and words[4] == pid and words[5].rpartition(":")[2] == inode:
            return int(pid)
    return None
