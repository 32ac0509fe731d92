"""How the node has a partition's promises checked: one launcher a partition, as its user."""

import json
import math
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from slapos.node.beneath import UnsafePath, open_folder
from slapos.node.promise.discover import find_promises, promises_version
from slapos.node.promise.result import KINDS, Mode, PromiseResult, from_document
from slapos.protocol.errors import MalformedDocument
from slapos.system.clock import Clock, SystemClock
from slapos.system.runner import CommandFailed, ProcessLimits, Runner, User

__all__ = [
    "LAUNCHER_TITLE",
    "Mode",
    "ProcessPromiseChecker",
    "PromiseChecker",
    "PromiseContext",
    "PromiseResult",
    "PromiseRun",
    "promises_version",
]

#: The title of the result that says that the promises could not be checked at all.
LAUNCHER_TITLE = "promise-launcher"
#: The program that runs a partition's promises.
LAUNCHER = "slapos.node.promise.launcher"
#: How many promises of a partition run at the same time.
PARALLEL = 4
#: Seconds that a launcher gets beyond its promises: to start, to bang, to end what hangs.
LAUNCHER_TIME = 60.0
#: Seconds that ending a promise may take once its time is up.
ENDING_TIME = 3.0
#: Seconds that a launcher gets in all: however many promises it has, other partitions wait.
LONGEST_TIME = 900.0
#: Seconds after which promises that could not all be checked are due again.
RETRY = 60.0
#: Characters of a launcher's output that a message about its failure repeats.
REPEATED_OUTPUT = 2000


@dataclass(frozen=True)
class PromiseContext:
    """Where, as whom and with what a partition's promises run; `timeout` is each one's seconds."""

    partition_directory: Path
    partition: str
    node: str
    master_url: str
    python: str
    user: User | None
    limits: ProcessLimits | None = None
    timeout: float = 20.0
    key_file: Path | None = None
    certificate_file: Path | None = None
    authority_file: Path | None = None


@dataclass(frozen=True)
class PromiseRun:
    """What came of checking a partition's promises, and until when nothing needs to be started.

    Keep it, and check again when `is_due` says so: until then a check would only say the same.
    `checked` and `next_due` are in seconds since 1970; `next_due` is when the first promise has its
    turn to look for anomalies, infinite for never. `version` is what `promises_version` said.
    """

    results: list[PromiseResult]
    checked: float
    next_due: float
    version: str = ""

    def is_due(self, now: float, version: str | None = None) -> bool:
        """Whether a promise has its turn, the clock was put back, or `version` is another one.

        Ask with the `promises_version` of the partition after something was done there, and
        without on every tick of a clock: then it costs nothing.
        """
        return not self.checked <= now < self.next_due or version not in (None, self.version)


class PromiseChecker(Protocol):
    """What can check a partition's promises."""

    def check(self, context: PromiseContext, *, mode: Mode, force: bool) -> PromiseRun:
        """Return the result of every promise; `force` runs also those whose turn has not come."""
        ...


class ProcessPromiseChecker:
    """Checks promises in a launcher process, so that nothing a release ships runs in the node."""

    def __init__(
        self, runner: Runner, environment: Mapping[str, str], clock: Clock | None = None
    ) -> None:
        self._runner = runner
        self._environment = environment
        self._clock = clock or SystemClock()

    def check(self, context: PromiseContext, *, mode: Mode, force: bool) -> PromiseRun:
        """Return the result of every promise, those kept from an earlier run included.

        A launcher that cannot be started, crashes, hangs or prints what nobody understands is a
        failed result titled `promise-launcher`, and due again soon; nothing is raised.
        """
        now = self._clock.now().timestamp()
        version = promises_version(context.partition_directory)
        results, next_due = self._checked(context, mode, force)
        return PromiseRun(results, now, now + RETRY if next_due is None else next_due, version)

    def _checked(
        self, context: PromiseContext, mode: Mode, force: bool
    ) -> tuple[list[PromiseResult], float | None]:
        """Return the results, and when the next promise is due, None where nobody could say."""
        try:
            count = len(find_promises(context.partition_directory).files)
            if not count:
                return [], math.inf
            _give_state_folder(context)
        except (OSError, UnsafePath) as error:
            return [self._failure(mode, f"the promises of {context.partition}: {error}")], None
        reading = _Reading(count)
        limit = math.ceil(count / PARALLEL) * (context.timeout + ENDING_TIME) + LAUNCHER_TIME
        try:
            result = self._runner.run(
                _command(context, mode, force),
                cwd=context.partition_directory,
                environment=self._promise_environment(context),
                timeout=min(limit, LONGEST_TIME),
                user=context.user,
                limits=context.limits,
                on_line=reading.take,
                check=False,
            )
            cause = f"the launcher ended with status {result.status} before its end"
        except CommandFailed as error:
            cause = str(error)
        if reading.ended:
            return reading.results, reading.next_due
        return [*reading.results, self._failure(mode, _told(context, cause, reading))], None

    def _promise_environment(self, context: PromiseContext) -> dict[str, str]:
        values = {**self._environment, "HOME": str(context.partition_directory)}
        uid = os.geteuid() if context.user is None else context.user.uid
        try:
            values["USER"] = values["LOGNAME"] = pwd.getpwuid(uid).pw_name
        except KeyError:  # a user without an entry has no name to pass on
            return values
        return values

    def _failure(self, mode: Mode, message: str) -> PromiseResult:
        return PromiseResult(
            title=LAUNCHER_TITLE,
            failed=True,
            message=message,
            date=(now := self._clock.now()),
            since=now,
            execution_time=0.0,
            kind=KINDS[mode],
        )


@dataclass
class _Reading:
    """What a launcher has printed so far: up to `limit` results, its end, and all else."""

    limit: int
    results: list[PromiseResult] = field(default_factory=list)
    ended: bool = False
    next_due: float | None = None
    other: str = ""

    def take(self, line: str) -> None:
        event = _event(line)
        if event.get("event") == "end":
            self.ended = True
            # Null is never; a launcher of an older package does not say it at all.
            next_due = event.get("next_due", "")
            if next_due is None or isinstance(next_due, int | float):
                self.next_due = math.inf if next_due is None else float(next_due)
        elif event.get("event") == "result" and len(self.results) < self.limit:
            try:
                self.results.append(from_document(event))
            except MalformedDocument as error:
                self.other += f"{error}\n"
        else:
            self.other = (self.other + line + "\n")[-REPEATED_OUTPUT:]


def _event(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _command(context: PromiseContext, mode: Mode, force: bool) -> list[str]:
    options = {
        "--partition-directory": context.partition_directory,
        "--partition": context.partition,
        "--node": context.node,
        "--master-url": context.master_url,
        "--mode": mode,
        "--timeout": context.timeout,
        "--parallel": PARALLEL,
        "--key-file": context.key_file,
        "--certificate-file": context.certificate_file,
        "--authority-file": context.authority_file,
    }
    words = [f"{name}={value}" for name, value in options.items() if value is not None]
    # -P: the partition's own files must not stand in for modules.
    command = [context.python, "-P", "-m", LAUNCHER, "--quiet", *words]
    return [*command, "--force"] if force else command


def _give_state_folder(context: PromiseContext) -> None:
    """Let the partition's user write below `.slapgrid`, which root may have made."""
    if context.user is not None:
        owner = (context.user.uid, context.user.gid)
        os.close(open_folder(context.partition_directory, ".slapgrid", owner=owner))


def _told(context: PromiseContext, cause: str, reading: _Reading) -> str:
    printed = reading.other.strip()
    return (
        f"the promises of {context.partition} could not all be checked: {cause}; "
        f"it was started with {context.python}, which must have the package slapos"
        + (f"; it printed: {printed}" if printed else "")
    )
