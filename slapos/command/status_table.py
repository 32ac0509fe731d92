"""The tables of `slapos node status`: a line for each partition, or for each process."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from slapos.command.columns import aligned, plain
from slapos.node.overview import TROUBLE, PartitionStatus, short_release
from slapos.node.supervise.supervisor import Process

HEADER = ("PARTITION", "INSTANCE", "RELEASE", "STATE", "PROCESSES", "PROMISES", "CPU", "MEMORY")


def count_line(statuses: Sequence[PartitionStatus]) -> str:
    """Return how many partitions are in which state, what is wrong first."""
    counts = Counter(one.state for one in statuses)
    states = [state for state in TROUBLE if state in counts]
    states += sorted(counts.keys() - set(TROUBLE), key=lambda state: -counts[state])
    told = ", ".join(f"{counts[state]} {state}" for state in states)
    return f"partitions in use: {len(statuses)} ({told})"


def partition_lines(statuses: Sequence[PartitionStatus], now: float) -> list[str]:
    """Return the table of partitions."""
    rows = [(*HEADER, "SINCE", "LAST ERROR")]
    for one in statuses:
        failed = f", {one.promises_failed} failed" if one.promises_failed else ""
        running = f"{one.running}/{one.processes}" if one.running is not None else "?"
        rows.append(
            (
                one.partition,
                "?" if one.title is None else plain(one.title),
                plain(short_release(one.release)) or "-",
                one.state,
                running,
                f"{one.promises_kept} ok{failed}",
                f"{one.cpu:.1%}" if one.cpu is not None else "-",
                f"{one.memory / 1024**2:.0f}M" if one.memory is not None else "-",
                shown(one.since) or "never",
                _error(one, now),
            )
        )
    return aligned(rows)


def _error(status: PartitionStatus, now: float) -> str:
    if not status.next_attempt:
        return plain(status.error)
    wait = status.next_attempt - now
    when = f"in {wait:.0f} s" if wait > 0 else "now"
    return f"next try {when}: {plain(status.error)}"


def process_lines(processes: Sequence[Process], names: Sequence[str]) -> list[str]:
    """Return the table of processes; `names` are those that were asked for."""
    if not processes:
        return ["there are no processes" if not names else "there is no such process"]
    rows = [("PROCESS", "STATE", "SINCE", "PID")]
    for process in processes:
        pid = str(process.pid) if process.pid else "-"
        since = _since(process) or "never"
        rows.append((f"{process.group}:{process.name}", process.state, since, pid))
    return aligned(rows)


def partition_document(status: PartitionStatus) -> dict[str, Any]:
    """Return what is said of a partition in JSON; times are in ISO 8601."""
    times = {"since": shown(status.since), "next_attempt": shown(status.next_attempt)}
    return {**asdict(status), **times}


def process_document(process: Process) -> dict[str, Any]:
    """Return what is said of a process in JSON."""
    return {**asdict(process), "since": _since(process)}


def shown(moment: float | None) -> str | None:
    """Return a time as text, None for none."""
    return datetime.fromtimestamp(int(moment), UTC).isoformat() if moment else None


def _since(process: Process) -> str | None:
    return shown(process.start if process.is_running else process.stop)
