"""How each partition in use does: what the master wants, what runs, what failed; nothing changed.

The partitions belong to users whom root does not trust: what is read there is read beneath them.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slapos.node.beneath import UnsafePath, open_file, open_folder
from slapos.node.instantiate.link_release import NAME
from slapos.node.layout import Layout
from slapos.node.monitor.usage import Usage
from slapos.node.promise.result import from_document
from slapos.node.promise.state_file import FOLDER, RESULT_SUFFIX
from slapos.node.record import PartitionRecord, ReleaseRecord, read_record
from slapos.node.supervise.supervisor import Process
from slapos.protocol.errors import MalformedDocument
from slapos.protocol.messages import NodeInformation, PartitionInformation
from slapos.protocol.states import InstanceState

#: States in which something is wrong, the worst first.
TROUBLE = ("failed", "down", "unhealthy", "unknown to the master", "waiting")
LEFT = TROUBLE[3]
#: What is known of the promises of each partition, and the time of the folder that says so.
Seen = dict[str, tuple[int, tuple[int, int]]]

#: Bytes of the largest promise result: its message has 5,000 characters at most.
LARGEST_RESULT = 100_000


@dataclass(frozen=True, kw_only=True)
class PartitionStatus:
    """One partition in use.

    `title` is that which it had last when the master could not be asked, or knows none; `running`
    and `processes` are None when supervisord could not. `state` is `failed`, `waiting`, `down` (a
    service ended), `unhealthy` (a promise fails) or `unknown to the master` (an instance is left in
    it, `instance`); else what is wanted: `started`, `stopped` or
    `destroyed`; `unknown` without the master. `since` is in seconds since 1970: when a process last
    started or ended, 0 for never. `error` is why the last attempt failed, `next_attempt` when it is
    tried again, in the same unit, 0 for not. `cpu` is how many processors it kept busy, `memory` in
    bytes, both in the last sample, None when it was not in it.
    """

    partition: str
    title: str | None
    release: str
    state: str
    running: int | None
    processes: int | None
    promises_kept: int
    promises_failed: int
    since: int
    error: str
    instance: str = ""
    next_attempt: float = 0.0
    cpu: float | None = None
    memory: int | None = None

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.state not in TROUBLE


def partition_statuses(
    layout: Layout,
    processes: Sequence[Process] | None,
    known: NodeInformation | None,
    usages: Mapping[str, Usage] | None = None,
    seen: Seen | None = None,
) -> list[PartitionStatus]:
    """Return how the partitions in use do, those with something wrong first.

    `processes` is None when supervisord cannot be asked, `known` when the master cannot. With
    `seen`, kept from one look to the next, what did not change is not read again.
    """
    wanted = {one.reference: one for one in known.partitions} if known is not None else {}
    used = {reference for reference, one in wanted.items() if not one.is_free}
    groups: dict[str, list[Process]] = {}
    for process in processes or ():
        groups.setdefault(process.group, []).append(process)
    here = set(groups)  # of the node's own groups, too
    with suppress(OSError):
        here |= {name.removesuffix(".json") for name in os.listdir(layout.state / "instance")}
    used |= {name for name in here if os.path.lexists(layout.partition(name))}
    if known is None:
        names = sorted(used)
    else:  # in the master's order, which is the numbers'
        names = [name for name in wanted if name in used] + sorted(used - set(wanted))
    reader = _Reader(layout, usages or {}, seen if seen is not None else {})
    statuses = [
        reader.status(
            name, groups.get(name, []) if processes is not None else None, wanted.get(name)
        )
        for name in names
    ]
    severity = {state: place for place, state in enumerate(TROUBLE)}
    return sorted(statuses, key=lambda one: severity.get(one.state, len(TROUBLE)))


@dataclass(frozen=True)
class _Reader:
    layout: Layout
    usages: Mapping[str, Usage]
    seen: Seen

    def status(
        self,
        reference: str,
        processes: Sequence[Process] | None,
        wanted: PartitionInformation | None,
    ) -> PartitionStatus:
        record = read_record(PartitionRecord, self.layout.partition_record(reference))
        kept, failed = count_promises(self.layout.partition(reference), self.seen)
        usage = self.usages.get(reference)
        return PartitionStatus(
            partition=reference,
            title=(wanted.title if wanted is not None else None) or record.title or None,
            release=_release(self.layout, reference, wanted),
            state=_state(record, processes, wanted, failed),
            running=sum(p.is_running for p in processes) if processes is not None else None,
            processes=len(processes) if processes is not None else None,
            promises_kept=kept,
            promises_failed=failed,
            since=max((p.start if p.is_running else p.stop for p in processes or ()), default=0),
            error=_error(record),
            instance=record.instance,
            next_attempt=record.next_attempt if record.failures else 0.0,
            cpu=usage.cpu / usage.seconds if usage is not None and usage.seconds else None,
            memory=usage.memory if usage is not None else None,
        )


def _state(
    record: PartitionRecord,
    processes: Sequence[Process] | None,
    wanted: PartitionInformation | None,
    failed_promises: int,
) -> str:
    if record.left_since:
        return LEFT
    if record.failures:
        return "waiting" if record.is_waiting else "failed"
    if processes is None:
        return "unknown"
    if any(process.is_down for process in processes):
        return "down"
    if not processes and not record.applied and _is_to_run(wanted):
        return "waiting"  # for its release, or its first turn
    if failed_promises and any(process.is_running for process in processes):
        return "unhealthy"
    return str(wanted.state) if wanted is not None else "unknown"


def _error(record: PartitionRecord) -> str:
    if record.left_since:
        return f"the master does not know {record.instance}, which is in it"
    return record.cause if record.failures else ""


def _is_to_run(wanted: PartitionInformation | None) -> bool:
    return wanted is not None and wanted.state is InstanceState.STARTED


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


def count_promises(folder: Path, seen: Seen) -> tuple[int, int]:
    """Return how many promises of a partition held the last time, and how many did not."""
    try:
        opened = open_folder(folder, str(FOLDER / "result"))
    except (OSError, UnsafePath):
        return 0, 0
    try:
        changed = os.fstat(opened).st_mtime_ns  # a result takes the place of the one before
        if folder.name not in seen or seen[folder.name][0] != changed:
            failures = [
                _is_failure(opened, name)
                for name in os.listdir(opened)
                if name.endswith(RESULT_SUFFIX)
            ]
            seen[folder.name] = changed, (failures.count(False), failures.count(True))
        return seen[folder.name][1]
    finally:
        os.close(opened)


def _is_failure(folder: int, name: str) -> bool | None:
    try:
        with os.fdopen(open_file(folder, name, os.O_RDONLY), "rb") as stream:
            return from_document(json.loads(stream.read(LARGEST_RESULT))).failed
    except (OSError, UnsafePath, ValueError, MalformedDocument):
        return None  # what cannot be read says nothing
