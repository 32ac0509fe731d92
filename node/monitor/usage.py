"""What partitions used between two samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from slapos.node.monitor.processes import ProcessSample


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a partition, or the machine, used in `seconds`.

    `cpu` is in seconds of one processor. `memory` (bytes), `processes` and `threads` are as they
    were at the end. `read`, `written` (from and to disks), `received`, `sent` are bytes; the latter
    two are None where there is no interface that counts them, `disk` (bytes) when it is not known.
    """

    seconds: float
    cpu: float = 0.0
    memory: int = 0
    processes: int = 0
    threads: int = 0
    read: int = 0
    written: int = 0
    received: int | None = None
    sent: int | None = None
    disk: int | None = None


@dataclass(frozen=True, kw_only=True)
class Look:
    """All processes of partitions at one moment: `uptime` seconds after the machine started.

    `boot` identifies that start: nothing can be compared across two of them. `busy`, `idle` are the
    seconds of all processors, `networks` the bytes that partitions received and sent, since then.
    """

    boot: str
    uptime: float
    processes: tuple[ProcessSample, ...]
    busy: float = 0.0
    idle: float = 0.0
    networks: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def since(self, before: "Look | None") -> "Look | None":
        """Return what this can be compared with: an earlier look, or the start of the machine.

        None when there was no look at all: what was before is not known.
        """
        if before is not None and before.boot != self.boot:
            return Look(boot=self.boot, uptime=0.0, processes=())
        return before

    def busy_share(self, before: "Look | None") -> float:
        """Return which part of all processors' time was used since then, 0 to 1."""
        busy = self.busy - (before.busy if before is not None else 0.0)
        idle = self.idle - (before.idle if before is not None else 0.0)
        return busy / (busy + idle) if busy >= 0 and idle >= 0 and busy + idle > 0 else 0.0


def used(before: Look | None, now: Look, partitions: Sequence[str]) -> dict[str, Usage]:
    """Return what partitions used since a look that can be compared, None for none.

    What ran all along counts with what it has used since; what started since, with all it has used.
    A process that ended is known by what its parent was told of it, if that still runs.
    """
    seconds = now.uptime - before.uptime if before is not None else 0.0
    totals = {reference: Usage(seconds=seconds) for reference in partitions}
    earlier = before.networks if before is not None else {}
    for reference in totals.keys() & now.networks.keys():
        counted = now.networks[reference]
        since = earlier.get(reference, counted)
        # A counter that went back began anew.
        received, sent = (
            new - old if new >= old else new for new, old in zip(counted, since, strict=True)
        )
        totals[reference] = replace(totals[reference], received=received, sent=sent)
    known = {sample.key: sample for sample in before.processes} if before is not None else {}
    told = _counted_already(known, now)
    for sample in now.processes:
        total = totals.get(sample.partition)
        if total is not None:
            start = known.get(sample.key)
            if start is None and (before is None or sample.started < before.uptime):
                start = sample  # what it used before is not known
            totals[sample.partition] = _plus(total, sample, start, told.get(sample.key, 0.0))
    return totals


def _plus(total: Usage, sample: ProcessSample, start: ProcessSample | None, told: float) -> Usage:
    cpu, ended, read, written = (
        (sample.cpu, sample.ended_children, sample.read, sample.written)
        if start is None
        else (
            sample.cpu - start.cpu,
            sample.ended_children - start.ended_children,
            sample.read - start.read,
            sample.written - start.written,
        )
    )
    return replace(
        total,
        cpu=total.cpu + max(cpu, 0.0) + max(ended - told, 0.0),
        memory=total.memory + sample.memory,
        processes=total.processes + bool(sample.threads),
        threads=total.threads + sample.threads,
        read=total.read + max(read, 0),
        written=total.written + max(written, 0),
    )


def process_loads(before: Look | None, now: Look) -> dict[tuple[int, float], float]:
    """Return how many processors each process kept busy since a look that can be compared."""
    seconds = now.uptime - before.uptime if before is not None else 0.0
    known = {sample.key: sample.cpu for sample in before.processes} if before is not None else {}
    loads = {}
    for sample in now.processes:
        is_new = before is not None and sample.started >= before.uptime
        used_cpu = sample.cpu - known.get(sample.key, 0.0 if is_new else sample.cpu)
        loads[sample.key] = max(used_cpu, 0.0) / seconds if seconds > 0 else 0.0
    return loads


def _counted_already(
    known: Mapping[tuple[int, float], ProcessSample], now: Look
) -> dict[tuple[int, float], float]:
    """Return, by the nearest ancestor that still runs, the processor time of what has ended.

    When it waits for them, the kernel adds all that they ever used to its `ended_children`.
    """
    living = {sample.key for sample in now.processes}
    parents = {sample.pid: sample for sample in known.values()}
    told: dict[tuple[int, float], float] = {}
    for sample in known.values():
        if sample.key in living:
            continue
        ancestor, steps = parents.get(sample.parent), 0
        while ancestor is not None and ancestor.key not in living and steps < len(parents):
            ancestor, steps = parents.get(ancestor.parent), steps + 1
        if ancestor is not None and ancestor.key in living:
            used = sample.cpu + sample.ended_children
            told[ancestor.key] = told.get(ancestor.key, 0.0) + used
    return told
