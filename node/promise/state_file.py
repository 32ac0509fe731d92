"""The files below `.slapgrid/promise`: results for monitors, and all that is known of promises.

A file that takes the place of another costs more than a promise (0.1 ms of processor and a write to
the disk at once), so there are few: one file of state for the whole partition, and a result file
only when it says something new or its date has become old.
"""

import errno
import json
import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slapos.node.promise.discover import PromiseFile
from slapos.node.promise.result import Mode, PromiseResult, from_document, to_document
from slapos.protocol.errors import MalformedDocument

FOLDER = Path(".slapgrid/promise")
RESULT_SUFFIX = ".status.json"
HISTORY_SUFFIX = ".runs.jsonl"
STATE = "promises.json"
RUNNING = "running.json"
DEFAULT_PERIODICITY = 2.0
#: Seconds that the date in a result file may lag behind, when nothing else in it changed. Readers
#: have to bear dates as old as a promise's period anyway, which may be hours.
RESULT_LAG = 300.0
#: The part of its period by which a promise's turn may move to fall in with its partition's.
SHIFT = 0.1


def replace_file(path: Path | str, text: str) -> None:
    """Put a file in place as a whole.

    Without waiting for the disk: what a promise found is found again in minutes.
    """
    beside = f"{path}.tmp"
    try:
        with open(beside, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(beside, path)
    except OSError:
        with suppress(OSError):  # on a full disk it would only take more of what is missing
            os.unlink(beside)
        raise


def _write_over(path: str, text: str) -> None:
    """Write a file over what is there, in one go: no new file, and hardly any space that a full
    disk has not. What a power cut tears is not known any more.
    """
    content = text.encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.write(descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.truncate(descriptor, len(content))
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Schedule:
    """What is known of a promise without starting it: `periodicity` in minutes, its next turn in
    seconds since 1970, in which modes it takes part, and of which state of its file this is true.
    """

    periodicity: float = DEFAULT_PERIODICITY
    next_run_after: float = 0.0
    is_tested: bool = True
    is_anomaly_detected: bool = True
    file_version: str = ""

    def takes_part(self, mode: Mode) -> bool:
        """Whether the promise has something to say in a mode."""
        if not self.is_tested and not self.is_anomaly_detected:
            return True  # a mistake of its author, which running it tells
        return self.is_tested if mode == "test" else self.is_anomaly_detected

    def is_due(self, now: float) -> bool:
        """Whether its turn has come; a clock that was put back does not delay it further."""
        return not now < self.next_run_after <= now + self.periodicity * 60 * (1 + SHIFT)


def next_turn(now: float, periodicity: float, partition: str) -> float:
    """Return when a promise that ran `now` has its turn again, both in seconds since 1970.

    That is when its period is over, on a grid of its partition's: so all promises of one partition
    have their turn together, for they share the cost of being started, and those of a thousand
    partitions are spread over the period. The first time it may be sooner, or a tenth later.
    """
    period = periodicity * 60
    turn = now + period - (now - zlib.crc32(partition.encode())) % period
    return round(turn if turn - now > period * SHIFT else turn + period, 3)


@dataclass(frozen=True)
class Known:
    """What is known of one promise; `told` is the date in its result file, 0 when it has none."""

    schedule: Schedule = Schedule()
    result: PromiseResult | None = None
    told: float = 0.0


class PromiseState:
    """The folders `result`, `log` and `state` of one partition."""

    def __init__(self, partition_directory: Path | str) -> None:
        # Texts: for the files of one promise, paths would take longer than all else.
        self._result, self._state, self.log = (
            f"{partition_directory}/{FOLDER}/{name}" for name in ("result", "state", "log")
        )
        self._known: dict[str, Known] = {}
        self._saved: dict[str, Known] = {}

    def load(self, promises: Iterable[PromiseFile]) -> None:
        """Read what is known of these promises, and remove what is stored of others (but logs).

        What cannot be read, as a crash may leave it, is not known. Makes the folders.
        """
        stored: dict[str, Known] = {}
        try:
            with open(f"{self._state}/{STATE}", encoding="utf-8") as stream:
                document = json.load(stream)
            for title, values in document.items():
                with suppress(ValueError, TypeError, KeyError, AttributeError, MalformedDocument):
                    stored[title] = _known(values)
        except (OSError, ValueError, AttributeError, RecursionError):
            for folder in (self._result, self._state, self.log):
                os.makedirs(folder, exist_ok=True)
        titles = {promise.title for promise in promises}
        self._saved = stored
        self._known = {title: known for title, known in stored.items() if title in titles}
        if stored.keys() != titles:
            self._forget_others(titles)

    def schedule(self, promise: PromiseFile) -> Schedule:
        """Return the schedule; of a promise whose file was changed, the default: it is due."""
        known = self._known.get(promise.title)
        if known is not None and known.schedule.file_version == file_version(promise.path):
            return known.schedule
        return Schedule()

    def result(self, title: str) -> PromiseResult | None:
        """Return the last result, None when it has none."""
        known = self._known.get(title)
        return known.result if known is not None else None

    def keep_schedule(self, promise: PromiseFile, schedule: Schedule) -> None:
        """Keep what was learnt of a promise that said nothing this time, in memory."""
        before = self._known.get(promise.title, Known())
        self._known[promise.title] = replace(before, schedule=schedule)

    def keep(
        self, promise: PromiseFile, schedule: Schedule, result: PromiseResult
    ) -> PromiseResult:
        """Keep what came of a promise in memory, and return the result with `since`.

        `publish` and `save` store it.
        """
        before = self._known.get(promise.title, Known())
        last = before.result
        goes_on = last is not None and last.failed == result.failed
        result = replace(result, since=(last and last.since if goes_on else None) or result.date)
        is_news = (
            not _says_the_same(last, result)
            or before.schedule.file_version != schedule.file_version
            or not 0 <= result.date.timestamp() - before.told < RESULT_LAG
        )
        self._known[promise.title] = Known(schedule, result, 0.0 if is_news else before.told)
        return result

    def publish(self, promise: PromiseFile) -> None:
        """Write the result file, when what was kept is news to its readers."""
        known = self._known[promise.title]
        if known.result is None or known.told:
            return
        document = to_document(known.result, name=promise.name, path=str(promise.path))
        replace_file(f"{self._result}/{promise.title}{RESULT_SUFFIX}", json.dumps(document))
        told = known.result.date.timestamp()
        self._known[promise.title] = replace(known, told=told)

    def save(self) -> None:
        """Store what is known, when that is news."""
        if self._known == self._saved:
            return
        document = {title: _document(title, known) for title, known in self._known.items()}
        _write_over(f"{self._state}/{STATE}", json.dumps(document))
        self._saved = dict(self._known)

    def mark_running(self, titles: Iterable[str]) -> None:
        """Note what runs now, for who finds it after this process was killed."""
        _write_over(f"{self._state}/{RUNNING}", json.dumps(list(titles)))

    def interrupted(self) -> set[str]:
        """Return what ran when the process of the last time was killed."""
        try:
            with open(f"{self._state}/{RUNNING}", encoding="utf-8") as stream:
                return set(map(str, json.load(stream)))
        except (OSError, ValueError, TypeError, RecursionError):
            return set()

    def history_path(self, title: str) -> str:
        """Return where the last runs are remembered."""
        return f"{self._state}/{title}{HISTORY_SUFFIX}"

    def log_path(self, title: str) -> str:
        """Return where the log is."""
        return f"{self.log}/{title}.log"

    def _forget_others(self, titles: set[str]) -> None:
        names = {STATE, RUNNING} | {
            title + suffix for title in titles for suffix in (RESULT_SUFFIX, HISTORY_SUFFIX)
        }
        for folder in (self._result, self._state):
            for name in set(os.listdir(folder)) - names:
                with suppress(OSError):  # whatever it is, it hinders nobody
                    os.unlink(f"{folder}/{name}")


def file_version(path: Path) -> str:
    """Return a text that changes when the file does, empty for one that is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"


def _says_the_same(one: PromiseResult | None, other: PromiseResult) -> bool:
    return one is not None and (one.kind, one.failed, one.message) == (
        other.kind,
        other.failed,
        other.message,
    )


def _document(title: str, known: Known) -> dict[str, Any]:
    result = known.result and to_document(known.result, name=title, path="")
    return {"schedule": vars(known.schedule), "result": result, "told": known.told}


def _known(document: Any) -> Known:
    """Return what `_document` wrote. Raises ValueError, TypeError, KeyError, MalformedDocument."""
    result = document["result"]
    return Known(
        _schedule(document["schedule"]),
        None if result is None else from_document(result),
        float(document["told"]),
    )


def _schedule(values: Any) -> Schedule:
    schedule = Schedule(**values)
    # A comparison with what is no number would stop the whole partition.
    return replace(
        schedule,
        periodicity=float(schedule.periodicity),
        next_run_after=float(schedule.next_run_after),
    )
