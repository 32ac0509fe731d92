"""What a check of a doctor finds: of the node's, and of the master's."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is: a problem keeps the program from its work, a warning may come to do so."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found, and unless all is well what to do."""

    level: Level
    found: str
    remedy: str = ""


def ok(found: str) -> Finding:
    """Return that something is well."""
    return Finding(level=Level.OK, found=found)


def warning(found: str, remedy: str) -> Finding:
    """Return something to look at."""
    return Finding(level=Level.WARNING, found=found, remedy=remedy)


def problem(found: str, remedy: str) -> Finding:
    """Return something that has to be mended."""
    return Finding(level=Level.PROBLEM, found=found, remedy=remedy)
