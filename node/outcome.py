"""What came of a pass: an exit status, and for each failure a line that says what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class ExitStatus(IntEnum):
    """What a node command ends with."""

    DONE = 0
    FAILED = 1
    PROMISE_FAILED = 2
    OFFLINE = 3
    NOT_ROOT = 5
    ALREADY_RUNNING = 10


class Result(StrEnum):
    """How it went with one release or partition."""

    DONE = "done"
    WAITING = "waiting"
    PROMISE_FAILED = "promise failed"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it went with one release or partition (`subject`), and for a failure why.

    `changed` is whether anything was built or instantiated.
    """

    subject: str
    result: Result = Result.DONE
    description: str = ""
    cause: str = ""
    log: str = ""
    remedy: str = ""
    changed: bool = False

    def line(self) -> str:
        """Return the failure in one line."""
        described = f" ({self.description})" if self.description else ""
        parts = [f"{self.subject}{described}: {' '.join(self.cause.split())}"]
        if self.log:
            parts.append(f"log: {self.log}")
        if self.remedy:
            parts.append(self.remedy)
        return " — ".join(parts)


def exit_status(outcomes: Sequence[Outcome]) -> ExitStatus:
    """Return the exit status of a pass: a failure weighs more than a promise."""
    results = {outcome.result for outcome in outcomes}
    if Result.FAILED in results or Result.WAITING in results:
        return ExitStatus.FAILED
    if Result.PROMISE_FAILED in results:
        return ExitStatus.PROMISE_FAILED
    return ExitStatus.DONE


def described(error: Exception) -> str:
    """Return an error's message; for an error of the system what it was about, too."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__
