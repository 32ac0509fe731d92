"""What the node remembers of a release or a partition between its passes: JSON files of its own.

They lie where only the node may write. One that is missing or damaged is no record: the work is
then done again, which is always safe.
"""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from slapos.system.files import write_if_changed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="Attempts")
Remembered = TypeVar("Remembered", bound="DataclassInstance")

#: Seconds until a failure is tried again for the first time; twice as long after each other one.
FIRST_WAIT = 10.0
LONGEST_WAIT = 3600.0
#: A wait is by up to so much of itself shorter or longer: what failed together is not tried again
#: together.
JITTER = 0.2
#: The same for an instance that waits for another one. Mostly it need not wait so long: the master
#: has it processed again when the other one publishes something.
FIRST_LOOK = 2.0
LONGEST_LOOK = 30.0


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """How often something failed in a row, why the last time, and when it is to be tried again.

    `next_attempt` is in seconds since 1970. `running` is whether an attempt began and did not end.
    """

    failures: int = 0
    next_attempt: float = 0.0
    cause: str = ""
    running: bool = False

    def failed(self: Kind, now: float, cause: str, chance: float = 0.5) -> Kind:
        """Return the record after one more failure; `chance` is in [0, 1), for the jitter."""
        wait = min(FIRST_WAIT * 2.0 ** min(self.failures, 20), LONGEST_WAIT)
        at = now + min(jittered(wait, chance), LONGEST_WAIT)
        ended = self.succeeded()
        return replace(ended, failures=self.failures + 1, next_attempt=at, cause=cause)

    def succeeded(self: Kind) -> Kind:
        """Return the record after a success."""
        return replace(self, failures=0, next_attempt=0.0, cause="", running=False)

    def waits(self, now: float) -> float:
        """Return the seconds until the next attempt, 0 when it may be made now.

        A clock that was set back does not make anything wait for longer than the longest wait.
        """
        return min(max(self.next_attempt - now, 0.0), LONGEST_WAIT)

    def told(self, now: float) -> str:
        """Return in words that it failed, why, and when it is tried again."""
        times = f" {self.failures} times in a row" if self.failures > 1 else ""
        return f"it failed{times} ({self.cause}), next try in {self.waits(now):.0f} s"


@dataclass(frozen=True, kw_only=True)
class ReleaseRecord(Attempts):
    """What is remembered of a release.

    `profile` is the digest of its local files at the last build, `reported` whether the master was
    told of its end.
    """

    url: str = ""
    profile: str = ""
    reported: bool = False


@dataclass(frozen=True, kw_only=True)
class PartitionRecord(Attempts):
    """What is remembered of a partition.

    `attempted` says for which order (timestamp, state, release) the last instantiation was, and
    `applied` the same for the last one that succeeded. `promised` is whether its promises held the
    last time, None when they were not checked since. `reported` is what the master was told last.
    `reported_at` is when, and `reported_since` when that began (another error is no new beginning),
    both in seconds since 1970.
    `is_waiting` is whether the last attempt did not fail but came too early.
    `checked` and `promises_due` are when promises that hold were checked and when the first of them
    has its turn again, both in seconds since 1970; `promises` tells them from others.
    `instance` and `title` say whose content is in it. `left_since` is since when the master, which
    calls it free, does not know that any more, in the same unit; 0 for when it does.
    """

    attempted: str = ""
    applied: str = ""
    promised: bool | None = None
    promise_failures: int = 0
    reported: str = ""
    reported_at: float = 0.0
    reported_since: float = 0.0
    is_waiting: bool = False
    checked: float = 0.0
    promises_due: float = 0.0
    promises: str = ""
    instance: str = ""
    title: str = ""
    left_since: float = 0.0

    def needs_check(self, now: float, promises: str) -> bool:
        """Return whether checking `promises` could say anything but that they hold."""
        holds = self.promised is True and self.promises == promises
        return not (holds and self.checked <= now < self.promises_due)

    def failed(self, now: float, cause: str, chance: float = 0.5) -> "PartitionRecord":
        """Return the record after one more failure; that it waited before does not count."""
        before = replace(self, is_waiting=False, failures=0) if self.is_waiting else self
        return Attempts.failed(before, now, cause, chance)

    def came_too_early(self, now: float, cause: str) -> "PartitionRecord":
        """Return the record after an attempt that only has to be made again."""
        looks = self.failures if self.is_waiting else 0
        wait = min(FIRST_LOOK * 2.0 ** min(looks, 20), LONGEST_LOOK)
        ended = replace(self.succeeded(), is_waiting=True, failures=looks + 1)
        return replace(ended, next_attempt=now + wait, cause=cause)


def jittered(wait: float, chance: float) -> float:
    """Return a wait made shorter or longer by chance, a number in [0, 1)."""
    return wait * (1 + JITTER * (2 * chance - 1))


def read_record(kind: type[Remembered], path: Path) -> Remembered:
    """Return what was remembered, or an empty record."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return kind(**{f.name: data[f.name] for f in fields(kind) if f.name in data})
    except (OSError, ValueError, TypeError):
        return kind()


def write_record(path: Path, record: "DataclassInstance") -> None:
    """Remember."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A cause repeats what programs printed: not for other partitions.
    text = json.dumps(asdict(record), indent=1, sort_keys=True) + "\n"
    write_if_changed(path, text, mode=0o600)


def forget(path: Path) -> None:
    """Remember nothing any more."""
    path.unlink(missing_ok=True)
