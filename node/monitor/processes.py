"""The processes of this machine that belong to partitions, read in one pass over /proc.

/proc is read here and not by psutil: that is three times as quick, and it tells when a process
started in ticks since the machine did, which stays the same when the clock is set.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from slapos.node.monitor.inhabited import Inhabited

#: supervisord gives these to every process that it starts: its own address, and the group's name.
MARK = "SUPERVISOR_SERVER_URL"
GROUP = "SUPERVISOR_GROUP_NAME"

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_KERNEL_THREAD = 0x00200000
#: Bytes of an environment that are read.
_ENVIRONMENT = 65536


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSample:
    """A process at one moment; times in seconds (`started` since the machine did), sizes in bytes.

    `ended_children` is the processor time of children that have ended and were waited for. One that
    has ended itself and was not has no `threads`. `calls` is how often it read or wrote; `read` and
    `written` are what came from and went to disks.
    """

    pid: int
    parent: int
    started: float
    user: int
    partition: str
    cpu: float
    ended_children: float
    threads: int
    memory: int
    read: int = 0
    written: int = 0
    calls: int = 0

    @property
    def key(self) -> tuple[int, float]:
        """What no other process ever has until the machine starts again."""
        return self.pid, self.started


class ProcessReader:
    """Reads the processes of partitions, and remembers whose they are.

    A process is of the partition whose user it runs as. Where several partitions have one user, it
    is of that whose supervisord group it was started in, or else that of its parent.
    """

    def __init__(self, socket: Path, *, proc: Path = Path("/proc")) -> None:
        """`socket` is supervisord's."""
        self._mark = f"{MARK}=unix://{socket}".encode()
        self._proc = str(proc)
        self._groups: dict[tuple[int, float], str] = {}

    def read(self, inhabited: Inhabited) -> list[ProcessSample]:
        """Return the processes of partitions."""
        found = list(self._samples(set(inhabited.owners.values())))
        self._groups = {
            sample.key: self._group_of(sample)
            for sample in found
            if sample.user not in inhabited.alone
        }
        parents = {sample.pid: sample for sample in found}
        result = []
        for sample in found:
            partition = inhabited.alone.get(sample.user)
            partition = partition or self._inherited(sample, parents, inhabited.owners)
            if partition:
                result.append(replace(sample, partition=partition))
        return result

    def _samples(self, users: Collection[int]) -> Iterator[ProcessSample]:
        for name in os.listdir(self._proc):
            if name.isdigit():
                # It may end at any moment.
                with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                    user = os.stat(f"{self._proc}/{name}").st_uid
                    # One that may not be dumped looks like root's.
                    if user in users or user == 0:
                        sample = self._sample(name, user, users)
                        if sample is not None:
                            yield sample

    def _sample(self, name: str, user: int, users: Collection[int]) -> ProcessSample | None:
        folder = f"{self._proc}/{name}"
        # The name, in parentheses, may hold anything.
        fields = _content(f"{folder}/stat").rpartition(b")")[2].split()
        if int(fields[6]) & _KERNEL_THREAD:
            return None
        if user not in users:
            user = _real_user(_content(f"{folder}/status"))
            if user not in users:
                return None
        sample = ProcessSample(
            pid=int(name),
            parent=int(fields[1]),
            started=int(fields[19]) * _TICK,
            user=user,
            partition="",
            cpu=(int(fields[11]) + int(fields[12])) * _TICK,
            ended_children=(int(fields[13]) + int(fields[14])) * _TICK,
            threads=0 if fields[0] == b"Z" else int(fields[17]),
            memory=int(fields[21]) * _PAGE,
        )
        try:
            counters = _content(f"{folder}/io").split()
        except PermissionError:
            return sample
        return replace(
            sample,
            calls=int(counters[5]) + int(counters[7]),
            read=int(counters[9]),
            written=int(counters[11]),
        )

    def _group_of(self, sample: ProcessSample) -> str:
        """Return the group of our supervisord that a process was started in, or ''."""
        if group := self._groups.get(sample.key):
            return group
        # One that was just forked has its own environment only once it executes its program.
        try:
            variables = _content(f"{self._proc}/{sample.pid}/environ", _ENVIRONMENT).split(b"\0")
        except OSError:
            return ""
        if self._mark not in variables:
            return ""
        wanted = f"{GROUP}=".encode()
        return next((v[len(wanted) :].decode() for v in variables if v.startswith(wanted)), "")

    def _inherited(
        self,
        sample: ProcessSample,
        parents: Mapping[int, ProcessSample],
        owners: Mapping[str, int],
    ) -> str:
        seen = set()
        current: ProcessSample | None = sample
        while current is not None and current.pid not in seen:
            if partition := partition_of_group(self._groups.get(current.key, ""), owners):
                return partition
            seen.add(current.pid)
            current = parents.get(current.parent)
        return ""


def partition_of_group(group: str, partitions: Mapping[str, object]) -> str:
    """Return the partition of a group of supervisord; `slappart0-prerm` is of `slappart0`."""
    while group and group not in partitions:
        group = group.rpartition("-")[0]
    return group


def _content(path: str, most: int = 4096) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def _real_user(status: bytes) -> int:
    line = next((one for one in status.splitlines() if one.startswith(b"Uid:")), b"Uid: -1")
    return int(line.split()[1])
