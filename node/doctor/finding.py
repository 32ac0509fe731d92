"""What a check of the doctor is given, and what it finds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from slapos.node.doors import Doors
from slapos.protocol.messages import NodeInformation


class Level(StrEnum):
    """How bad it is: a problem keeps the node from its work, a warning may come to do so."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found, and unless all is well what to do."""

    level: Level
    found: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class MasterAnswer:
    """What the master answered to one question: `information`, or `error` why there is none.

    `latency` is in seconds; `ahead` by how many seconds our clock is before the master's, None
    when the master told no time.
    """

    information: NodeInformation | None = None
    error: str = ""
    latency: float = 0.0
    ahead: float | None = None


@dataclass(frozen=True, kw_only=True)
class Examined:
    """The node that is examined: its doors, the folders of its partitions, its master's answer.

    `unit` is where the unit file belongs that has systemd run the agent, None where none belongs.
    """

    doors: Doors
    partitions: tuple[Path, ...]
    answer: MasterAnswer
    unit: Path | None = None


Check = Callable[[Examined], Iterator[Finding]]


def ok(found: str) -> Finding:
    """Return that something is well."""
    return Finding(level=Level.OK, found=found)


def warning(found: str, remedy: str) -> Finding:
    """Return something to look at."""
    return Finding(level=Level.WARNING, found=found, remedy=remedy)


def problem(found: str, remedy: str) -> Finding:
    """Return something that has to be mended."""
    return Finding(level=Level.PROBLEM, found=found, remedy=remedy)
