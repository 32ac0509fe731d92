"""The program that runs the promises of one partition, as its user: `python -m …launcher`.

Prints on stdout one JSON document a line: `{"event": "result", …}` for each promise, with the keys
of its result file, then `{"event": "end"}`. Prints on stderr what a person may read.
Exit status: 0 all is well, 2 a promise fails, 1 the promises could not be run.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn

from slapos.node.bang import BangSettings, bang
from slapos.node.promise.conclusion import (
    Circumstances,
    outcome_of_executable,
    outcome_of_plugin,
)
from slapos.node.promise.discover import PromiseFile, find_promises
from slapos.node.promise.execution import Outcome, run_plugin
from slapos.node.promise.history import History, Run
from slapos.node.promise.in_place import run_in_place
from slapos.node.promise.log import append, format_line, rotate, transaction_of
from slapos.node.promise.plugin_source import read_plugin
from slapos.node.promise.process import Ended, ProcessPool
from slapos.node.promise.result import KINDS, Mode, PromiseResult, to_document
from slapos.node.promise.state_file import PromiseState, Schedule, file_version, next_turn
from slapos.node.promise.worker import Work
from slapos.protocol.errors import SlapOSError
from slapos.system.clock import Clock, SystemClock
from slapos.system.settings import environment

EXIT_FAILING = 2
EXIT_NOT_RUN = 1
EXIT_CANNOT_EXECUTE = 126  # as a shell has it
EXIT_TERMINATED = 128 + signal.SIGTERM
#: Seconds after which results are stored although there is more to do.
SAVED_AFTER = 1.0


@dataclass(frozen=True)
class Due:
    """A promise whose turn has come."""

    promise: PromiseFile
    schedule: Schedule
    file_version: str
    transaction: str


class Launcher:
    """Runs the promises of one partition once."""

    def __init__(
        self, arguments: argparse.Namespace, clock: Clock, values: Mapping[str, str]
    ) -> None:
        self._arguments = arguments
        self._mode: Mode = arguments.mode
        self._directory: Path = arguments.partition_directory
        self._clock = clock
        self._environment = values
        self._state = PromiseState(self._directory)
        self._saved = clock.monotonic()
        self._suspects: set[str] = set()
        self._failing = False
        self._bang_for: str | None = None

    def run(self) -> bool:
        """Run what is due, print every result, and return whether a promise fails."""
        os.chdir(self._directory)
        promises = find_promises(self._directory)
        self._state.load(promises.files)
        for path in promises.not_executable:
            _say(f"warning: {path} is not executable: no promise; make it so, or remove it")
        due = [due for promise in promises.files if (due := self._due(promise)) is not None]
        self._suspects = self._state.interrupted()
        if self._suspects:
            _say(f"warning: the launcher was killed while it ran {', '.join(self._suspects)}")
        # Who waited longest comes first: also where there is no time for all of them. Whoever may
        # have killed us comes last.
        due.sort(key=lambda one: (one.promise.title in self._suspects, one.schedule.next_run_after))
        works: list[Work[Due]] = []
        try:
            works = [work for one in due if (work := self._work(one)) is not None]
            pool = ProcessPool[Due](
                self._clock,
                parallel=self._arguments.parallel,
                timeout=self._arguments.timeout,
                on_begin=self._begin,
            )
            for ended in pool.run(works):
                self._conclude(ended)
                self._save_late()
        finally:
            self._save()
            if works or self._suspects:
                self._mark(())
        _tell({"event": "end", "next_due": self._next_due(promises.files)})
        sys.stdout.flush()
        if self._bang_for is not None:
            self._bang(self._bang_for)
        return self._failing

    def _due(self, promise: PromiseFile) -> Due | None:
        """Return what is to be run; where it is not its turn, print the result it left."""
        schedule = self._state.schedule(promise)
        if not schedule.takes_part(self._mode):
            return None
        now = self._clock.now()
        if not self._arguments.force and not schedule.is_due(now.timestamp()):
            kept = self._state.result(promise.title)
            if kept is not None:
                self._emit(promise, kept, "kept, ")
                return None
        return Due(promise, schedule, file_version(promise.path), transaction_of(now))

    def _work(self, due: Due) -> Work[Due] | None:
        """Return what a process has to do for a promise, None where it was done without one."""
        path = due.promise.path
        rotate(self._state.log_path(due.promise.title))
        if not due.promise.is_plugin:
            return Work(due, partial(_become_executable, path, self._environment))
        plugin = read_plugin(path)
        begun = self._clock.monotonic()
        outcome = run_in_place(plugin, self._directory, self._config(due), self._mode)
        if outcome is not None:
            self._take(due, outcome, self._clock.monotonic() - begun)
            return None
        paths = plugin.search_path
        do = partial(_answer_plugin, path, self._config(due), self._mode, paths)
        return Work(due, do, company=paths)

    def _config(self, due: Due) -> dict[str, Any]:
        given = self._arguments
        return {
            "name": due.promise.name,
            "path": str(due.promise.path),
            "partition-folder": str(self._directory),
            "log-folder": self._state.log,
            "debug": False,
            "promise-timeout": given.timeout,
            "master-url": given.master_url,
            "partition-key": given.key_file and str(given.key_file),
            "partition-cert": given.certificate_file and str(given.certificate_file),
            "partition-id": given.partition,
            "computer-id": given.node,
            "promise-title": due.promise.title,
            "promise-transaction": due.transaction,
            # slapos.core's promises refuse to be without these two.
            "queue": SimpleQueue[object](),
            "slapgrid-version": "1.26.1",
        }

    def _conclude(self, ended: Ended[Due]) -> None:
        """Take what came of a promise that had a process."""
        promise = ended.key.promise
        now = self._clock.now().timestamp()
        previous = partial(self._state.result, promise.title)
        given = Circumstances(self._mode, self._arguments.timeout, now, previous)
        if promise.is_plugin:
            outcome = outcome_of_plugin(ended, given)
        else:
            history = History(self._state.history_path(promise.title))
            outcome = outcome_of_executable(ended, given, history)
        self._take(ended.key, outcome, ended.seconds, ended.output)

    def _take(self, due: Due, outcome: Outcome, seconds: float, output: str = "") -> None:
        """Store and print what came of a promise."""
        promise = due.promise
        schedule = replace(outcome.schedule or due.schedule, file_version=due.file_version)
        if outcome.kind is None:
            self._state.keep_schedule(promise, schedule)
            return
        date = self._clock.now()
        now = date.timestamp()
        turn = next_turn(now, schedule.periodicity, self._arguments.partition)
        result = self._state.keep(
            promise,
            replace(schedule, next_run_after=turn),
            PromiseResult(
                title=promise.title,
                failed=outcome.failed,
                message=outcome.message,
                date=date,
                execution_time=round(seconds, 3),
                kind=outcome.kind,
            ),
        )
        self._emit(promise, result)
        if _is_anomaly(outcome) and self._mode == "anomaly" and self._bang_for is None:
            self._bang_for = promise.title
        try:
            self._state.publish(promise)
            History(self._state.history_path(promise.title)).append(Run(now, outcome.lines))
            self._log(due, outcome, output, now)
        except OSError as error:
            _say(f"warning: what came of {promise.title} cannot be stored: {error}")

    def _begin(self, running: list[Due]) -> None:
        self._mark(one.promise.title for one in running)
        if self._suspects:
            self._save()

    def _mark(self, titles: Iterable[str]) -> None:
        with suppress(OSError):  # on a full disk, where nothing is noted
            self._state.mark_running(titles)

    def _save_late(self) -> None:
        """Store the state where it takes long to get to the end, which may never come."""
        now = self._clock.monotonic()
        if now - self._saved >= SAVED_AFTER:
            self._saved = now
            self._save()

    def _save(self) -> None:
        try:
            self._state.save()
        except OSError as error:
            _say(f"warning: the state of the promises cannot be stored: {error}")

    def _next_due(self, promises: Iterable[PromiseFile]) -> float | None:
        """Return when the first promise has its turn to look for anomalies, None for never."""
        schedules = map(self._state.schedule, promises)
        turns = [one.next_run_after for one in schedules if one.takes_part("anomaly")]
        return min(turns, default=None)

    def _log(self, due: Due, outcome: Outcome, output: str, now: float) -> None:
        """Log what the promise did not log itself."""
        path = self._state.log_path(due.promise.title)
        if outcome.schedule is None:
            for line in outcome.lines:
                append(path, format_line(now, line.level, due.transaction, line.message))
        elif outcome.lines and output:
            # Not where the promise is slapos.core's: it would take this line for a run.
            append(path, format_line(now, "DEBUG", due.transaction, output))

    def _emit(self, promise: PromiseFile, result: PromiseResult, how: str = "") -> None:
        self._failing |= result.failed
        document = to_document(result, name=promise.name, path=str(promise.path))
        _tell({"event": "result", **document})
        if self._arguments.quiet:
            return
        word = "FAILED" if result.failed else "ok"
        message = result.message.replace("\n", "\n    ")
        _say(f"promise {promise.title}: {word} ({how}{result.execution_time:g} s) {message}")

    def _bang(self, title: str) -> None:
        """Have the instance processed again, for the promise `title`."""
        given = self._arguments
        settings = BangSettings(
            master_url=given.master_url,
            node=given.node,
            key_file=given.key_file,
            certificate_file=given.certificate_file,
            authority_file=given.authority_file,
        )
        message = f"Promise {title} is failing"
        try:
            bang(settings, given.partition, message)
            _say(f"bang: {message}")
        except (SlapOSError, OSError) as error:
            _say(f"warning: the master did not take the bang {message!r}: {error}")


def _answer_plugin(
    path: Path, config: dict[str, Any], mode: Mode, paths: tuple[str, ...] | None
) -> bytes:
    before = list(sys.path)
    answer = run_plugin(path, config, mode, SystemClock()).to_json().encode()
    if sys.path == [*(paths or ()), *before]:
        sys.path[:] = before
    return answer


def _become_executable(path: Path, values: Mapping[str, str]) -> NoReturn:
    try:
        os.execve(path, [str(path)], dict(values))
    except OSError as error:
        _say(
            f"{path} cannot be executed: {error.strerror}; "
            "does its first line name an interpreter that exists (#!...)?"
        )
        os._exit(EXIT_CANNOT_EXECUTE)


def _is_anomaly(outcome: Outcome) -> bool:
    return outcome.failed and outcome.may_bang and outcome.kind == KINDS["anomaly"]


def _end(*_: object) -> NoReturn:
    sys.exit(EXIT_TERMINATED)


def _tell(event: dict[str, Any]) -> None:
    """Tell the program that started us: at the end, or as soon as a promise takes its time."""
    sys.stdout.write(json.dumps(event) + "\n")


def _say(text: str) -> None:
    """Tell a person."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m slapos.node.promise.launcher",
        description="Run the promises of one partition.",
        allow_abbrev=False,
    )
    parser.add_argument("--partition-directory", type=_absolute, required=True)
    parser.add_argument("--partition", required=True, help="its name")
    parser.add_argument("--node", required=True, help="the name of its node")
    parser.add_argument("--master-url", required=True, help="where an anomaly is told (bang)")
    parser.add_argument("--mode", choices=tuple(KINDS), default="test")
    parser.add_argument("--force", action="store_true", help="run also what is not due")
    parser.add_argument("--quiet", action="store_true", help="tell people only what is wrong")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds, for each promise")
    parser.add_argument("--parallel", type=_count, default=4, help="how many run at the same time")
    parser.add_argument("--key-file", type=Path)
    parser.add_argument("--certificate-file", type=Path)
    parser.add_argument("--authority-file", type=Path)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"1 or more, not {text}")
    return int(text)


def _absolute(text: str) -> Path:
    return Path(text).absolute()


#: Made once, also for the many that are forked from a process that has this module loaded.
PARSER = _parser()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the promises of a partition."""
    arguments = PARSER.parse_args(argv)
    signal.signal(signal.SIGTERM, _end)
    try:
        failing = Launcher(arguments, SystemClock(), environment()).run()
    except (OSError, SlapOSError) as error:
        _say(f"the promises of {arguments.partition} cannot be run: {error}")
        return EXIT_NOT_RUN
    return EXIT_FAILING if failing else 0


if __name__ == "__main__":
    sys.exit(main())
