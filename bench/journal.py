"""What it costs to write a report down before it is sent: beside one fsync, however many wait."""

import os
import tempfile
from functools import partial
from itertools import count
from pathlib import Path

from bench.measure import Figure, in_turn, show, timed
from slapos.node.report.journal import Journal, Kind
from slapos.system.clock import SystemClock
from slapos.system.identifier import SystemIdentifiers

WAITING = (10, 1000)
#: Reports in one run, so that a run is longer than the clock's grain.
REPORTS = 20
_numbers = count()


def _change(journal: Journal) -> None:
    for number in range(REPORTS):
        payload = {"state": "started", "timestamp": str(next(_numbers))}
        journal.add(Kind.INSTANCE, f"slappart{number % 10}", payload)


def _repeat(journal: Journal) -> None:
    for _ in range(REPORTS):
        journal.add(Kind.INSTANCE, "same", {"state": "started"})


def _sync(folder: Path) -> None:
    for _ in range(REPORTS):
        with (folder / "file").open("wb") as stream:
            stream.write(b"x" * 200)
            stream.flush()
            os.fsync(stream.fileno())


def main() -> None:
    figures = []
    # Not in a temporary folder that may be in memory.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        folder = Path(name)
        for waiting in WAITING:
            journal = Journal(folder / f"{waiting}.db", SystemClock(), SystemIdentifiers())
            for number in range(waiting):
                journal.add(Kind.INSTANCE, f"slappart{number}", {"state": "stopped"})
            figures.append(
                in_turn(
                    f"{REPORTS} new states, {waiting} waiting",
                    partial(_change, journal),
                    f"{REPORTS} writes of a file with fsync",
                    partial(_sync, folder),
                    runs=15,
                )
            )
            _repeat(journal)
            same = timed(partial(_repeat, journal))
            figures.append(Figure(f"{REPORTS} states that wait already, {waiting} waiting", same))
            journal.close()
    show(figures)


if __name__ == "__main__":
    main()
