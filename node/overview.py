"""How each partition in use does: what the master wants, what runs, what failed; nothing changed.

The partitions belong to users whom root does not trust: what is read there is read beneath them.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slapos.node.beneath import UnsafePath, open_folder, read_beneath
from slapos.node.instantiate.link_release import NAME
from slapos.node.layout import Layout
from slapos.node.promise.result import from_document
from slapos.node.promise.state_file import FOLDER, RESULT_SUFFIX
from slapos.node.record import PartitionRecord, ReleaseRecord, read_record
from slapos.node.supervise.supervisor import Process
from slapos.protocol.errors import MalformedDocument
from slapos.protocol.messages import NodeInformation, PartitionInformation

#: Bytes of the largest promise result: its message has 5,000 characters at most.
LARGEST_RESULT = 100_000


@dataclass(frozen=True, kw_only=True)
class PartitionStatus:
    """One partition in use.

    `title` is None when the master could not be asked. `state` is `failed`, `waiting`, `down` (a
    service ended) or `unhealthy` (a promise fails); else what is wanted: `started`, `stopped` or
    `destroyed`; `unknown` without the master. `since` is in seconds since 1970: when a process last
    started or ended, 0 for never. `error` is why the last attempt failed.
    """

    partition: str
    title: str | None
    release: str
    state: str
    running: int
    processes: int
    promises_kept: int
    promises_failed: int
    since: int
    error: str


def partition_statuses(
    layout: Layout, processes: Sequence[Process], known: NodeInformation | None
) -> list[PartitionStatus]:
    """Return how the partitions in use do; `known` is None when the master cannot be asked."""
    wanted = {one.reference: one for one in known.partitions} if known is not None else {}
    used = {reference for reference, one in wanted.items() if not one.is_free}
    here = {path.stem for path in (layout.state / "instance").glob("*.json")}
    here |= {process.group for process in processes}  # of the node's own groups, too
    used |= {name for name in here if os.path.lexists(layout.partition(name))}
    if known is None:
        names = sorted(used)
    else:  # in the master's order, which is the numbers'
        names = [name for name in wanted if name in used] + sorted(used - set(wanted))
    return [
        _status(layout, name, [p for p in processes if p.group == name], wanted.get(name))
        for name in names
    ]


def _status(
    layout: Layout,
    reference: str,
    processes: Sequence[Process],
    wanted: PartitionInformation | None,
) -> PartitionStatus:
    record = read_record(PartitionRecord, layout.partition_record(reference))
    kept, failed = count_promises(layout.partition(reference))
    return PartitionStatus(
        partition=reference,
        title=wanted.title if wanted is not None else None,
        release=_release(layout, reference, wanted),
        state=_state(record, processes, wanted, failed),
        running=sum(process.is_running for process in processes),
        processes=len(processes),
        promises_kept=kept,
        promises_failed=failed,
        since=max((p.start if p.is_running else p.stop for p in processes), default=0),
        error=record.cause if record.failures else "",
    )


def _state(
    record: PartitionRecord,
    processes: Sequence[Process],
    wanted: PartitionInformation | None,
    failed_promises: int,
) -> str:
    if record.failures:
        return "waiting" if record.is_waiting else "failed"
    if any(process.is_down for process in processes):
        return "down"
    if failed_promises and any(process.is_running for process in processes):
        return "unhealthy"
    return str(wanted.state) if wanted is not None else "unknown"


def _release(layout: Layout, reference: str, wanted: PartitionInformation | None) -> str:
    """Return the release's URL; without the master that of the link in the partition."""
    if wanted is not None:
        return wanted.software_url or ""
    try:
        digest = Path(os.readlink(layout.partition(reference) / NAME)).name
    except OSError:
        return ""
    return read_record(ReleaseRecord, layout.state / "software" / f"{digest}.json").url or digest


def short_release(url: str) -> str:
    """Return what tells a release from others at a glance: the folder of its software.cfg."""
    path = PurePosixPath(url.partition("?")[0])
    return path.parent.name if path.name == "software.cfg" and path.parent.name else path.stem


def count_promises(folder: Path) -> tuple[int, int]:
    """Return how many promises of a partition held the last time, and how many did not."""
    try:
        opened = open_folder(folder, str(FOLDER / "result"))
    except (OSError, UnsafePath):
        return 0, 0
    try:
        names = [name for name in os.listdir(opened) if name.endswith(RESULT_SUFFIX)]
    finally:
        os.close(opened)
    failures = []
    for name in names:
        try:
            content = read_beneath(folder, str(FOLDER / "result" / name), LARGEST_RESULT)
            failures.append(from_document(json.loads(content or b"")).failed)
        except (OSError, UnsafePath, ValueError, MalformedDocument):
            continue  # what cannot be read says nothing
    return failures.count(False), failures.count(True)
