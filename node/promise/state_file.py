"""The files below `.slapgrid/promise`: results, and when a promise's turn comes again."""

import json
import os
from collections.abc import Set
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from slapos.node.promise.discover import PromiseFile
from slapos.node.promise.result import Mode, PromiseResult, from_document, to_document
from slapos.protocol.errors import MalformedDocument

FOLDER = Path(".slapgrid/promise")
RESULT_SUFFIX = ".status.json"
SCHEDULE_SUFFIX = ".schedule.json"
HISTORY_SUFFIX = ".runs.jsonl"
DEFAULT_PERIODICITY = 2.0


def replace_file(path: Path, text: str) -> None:
    """Put a file in place as a whole.

    Without waiting for the disk: what a promise found is found again in minutes.
    """
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


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
        return not now < self.next_run_after <= now + self.periodicity * 60


class PromiseState:
    """The folders `result`, `log` and `state` of one partition."""

    def __init__(self, partition_directory: Path) -> None:
        self._result = partition_directory / FOLDER / "result"
        self._state = partition_directory / FOLDER / "state"
        self.log = partition_directory / FOLDER / "log"

    def make_folders(self) -> None:
        """Make the folders."""
        for folder in (self._result, self._state, self.log):
            folder.mkdir(parents=True, exist_ok=True)

    def load_result(self, title: str) -> PromiseResult | None:
        """Return the stored result, None when there is none that can be read."""
        try:
            return from_document(json.loads((self._result / (title + RESULT_SUFFIX)).read_text()))
        except (OSError, ValueError, MalformedDocument):
            return None

    def save_result(self, promise: PromiseFile, result: PromiseResult) -> None:
        """Store a result."""
        document = to_document(result, name=promise.name, path=str(promise.path))
        replace_file(self._result / (promise.title + RESULT_SUFFIX), json.dumps(document))

    def load_schedule(self, promise: PromiseFile) -> Schedule:
        """Return the schedule; of a promise whose file was changed, the default: it is due."""
        with suppress(OSError, ValueError, TypeError):
            path = self._state / (promise.title + SCHEDULE_SUFFIX)
            schedule = Schedule(**json.loads(path.read_text()))
            if schedule.file_version == file_version(promise.path):
                return schedule
        return Schedule()

    def save_schedule(self, promise: PromiseFile, schedule: Schedule) -> None:
        """Store a schedule."""
        path = self._state / (promise.title + SCHEDULE_SUFFIX)
        replace_file(path, json.dumps(asdict(schedule)))

    def history_path(self, title: str) -> Path:
        """Return where the last runs are remembered."""
        return self._state / (title + HISTORY_SUFFIX)

    def log_path(self, title: str) -> Path:
        """Return where the log is."""
        return self.log / f"{title}.log"

    def forget_others(self, titles: Set[str]) -> None:
        """Remove what is stored of promises that are no more, logs excepted."""
        for folder in (self._result, self._state):
            for path in folder.iterdir():
                if _title_of(path.name) not in titles:
                    with suppress(OSError):  # whatever it is, it hinders nobody
                        path.unlink()


def file_version(path: Path) -> str:
    """Return a text that changes when the file does, empty for one that is gone."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"


def _title_of(name: str) -> str:
    name = name.removesuffix(".tmp")
    for suffix in (RESULT_SUFFIX, SCHEDULE_SUFFIX, HISTORY_SUFFIX):
        name = name.removesuffix(suffix)
    return name
