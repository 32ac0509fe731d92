"""What the last runs of a promise logged, and the rules by which that is counted."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from slapos.node.promise.state_file import replace_file

FAILURE_LEVELS = ("ERROR", "CRITICAL")
#: How many runs are remembered at least; rules that look further back see only these.
REMEMBERED_RUNS = 100
#: Below so many bytes nobody counts how many there are.
SMALL = 64 * 1024


@dataclass(frozen=True)
class LogLine:
    """One thing a promise logged: when (seconds since 1970), at which level, what."""

    date: float
    level: str
    message: str


@dataclass(frozen=True)
class Run:
    """All that a promise logged in one run."""

    date: float
    lines: tuple[LogLine, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether an error was logged."""
        return any(line.level in FAILURE_LEVELS for line in self.lines)

    @property
    def message(self) -> str:
        """What was logged, without dates and levels."""
        text = "\n".join(line.message for line in self.lines).strip()
        return text or "it logged nothing, so nothing is wrong"


@dataclass(frozen=True)
class Verdict:
    """What the runs amount to."""

    problem: bool
    message: str


def judge(
    runs: Iterable[Run],
    *,
    now: float,
    result_count: int = 1,
    failure_amount: int = 1,
    latest_minute: float = 0,
) -> Verdict:
    """Judge a promise by its runs, the newest first.

    It is fine when the newest run is; otherwise there is a problem when at least `failure_amount`
    of the newest `result_count` runs failed. Runs older than `latest_minute` minutes do not count,
    0 for no such limit. No more runs are taken from `runs` than are needed.
    """
    oldest = now - latest_minute * 60 if latest_minute > 0 else float("-inf")
    newest: Run | None = None
    failures = 0
    for run in islice(runs, max(result_count, 1)):
        if run.date <= oldest:
            break
        if newest is None:
            newest = run
            if not run.failed:
                return Verdict(False, run.message)
        failures += run.failed
        if failures >= failure_amount:
            return Verdict(True, newest.message)
    return Verdict(False, newest.message if newest else "it has not run yet")


class History:
    """The file with the last runs of one promise: one JSON document a line, the newest last."""

    def __init__(self, path: Path | str) -> None:
        self._path = path

    def newest_first(self) -> list[Run]:
        """Return the remembered runs; lines that make no sense, as a crash leaves them, are not."""
        runs = (_parsed(line) for line in reversed(self._lines()))
        return [run for run in runs if run is not None]

    def append(self, run: Run) -> None:
        """Remember one more run, and forget the oldest where they have become many."""
        text = _written(run) + "\n"
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size <= SMALL or self._count() < 2 * REMEMBERED_RUNS:
                # After a line that a crash has torn, begin a new one.
                is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                os.write(descriptor, (b"\n" if is_torn else b"") + text.encode())
                return
        finally:
            os.close(descriptor)
        kept = self._lines()[1 - REMEMBERED_RUNS :]
        replace_file(self._path, "\n".join([*kept, text]))

    def _count(self) -> int:
        return len(self._lines())

    def _lines(self) -> list[str]:
        try:
            with open(self._path, encoding="utf-8", errors="replace") as stream:
                return stream.read().splitlines()
        except FileNotFoundError:
            return []


def _written(run: Run) -> str:
    lines = [[line.date, line.level, line.message] for line in run.lines]
    return json.dumps({"date": run.date, "lines": lines})


def _parsed(text: str) -> Run | None:
    try:
        document = json.loads(text)
        lines = [LogLine(float(d), str(lv), str(m)) for d, lv, m in document["lines"]]
        return Run(float(document["date"]), tuple(lines))
    except (ValueError, TypeError, KeyError):
        return None
