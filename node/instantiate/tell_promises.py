"""What the master is told of promises: all of a partition's, when one fails or holds again.

That is told at once. It is told again every day, and within a quarter of an hour when one that
fails says something else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slapos.node.doors import Doors
from slapos.node.promise.discover import find_promises
from slapos.node.promise.result import PromiseResult
from slapos.node.record import read_record, write_record
from slapos.protocol.messages import PartitionInformation

REFRESH = 86400.0
NEWS = 900.0
#: Promises of a partition that are told, and characters of each message: so one report fits into
#: what a master takes in one go.
MOST = 200
MESSAGE_LENGTH = 600

FIELDS = {"name", "title", "failed", "message", "at"}

Result = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ToldPromises:
    """What was told last of a partition's promises, of which instance, and when."""

    instance: str = ""
    told_at: float = 0.0
    results: Sequence[Result] = ()


def tell_promises(
    wanted: PartitionInformation, folder: Path, results: Sequence[PromiseResult], doors: Doors
) -> None:
    """Tell how the promises of a partition do, unless the master knows that."""
    path = doors.settings.layout.partition_promises(wanted.reference)
    instance, now = wanted.instance_guid or "", doors.now()
    told = read_record(ToldPromises, path)
    if told.instance != instance:
        told = ToldPromises(instance=instance)
    known = {each["name"]: each for each in told.results if each.keys() == FIELDS}
    there = {promise.title for promise in find_promises(folder).files}
    # What looks for anomalies says nothing of promises that only tests look at.
    found = {name: each for name, each in known.items() if name in there}
    found |= {each["name"]: each for each in map(_document, results)}
    # If they are too many, those that fail come first.
    chosen = sorted(found.values(), key=lambda each: (not each["failed"], each["name"]))[:MOST]
    if not is_news(known, {each["name"]: each for each in chosen}, now - told.told_at):
        return
    if doors.reports.promises(wanted.reference, instance, chosen):
        write_record(path, ToldPromises(instance=instance, told_at=now, results=chosen))


def is_news(known: Mapping[str, Result], found: Mapping[str, Result], age: float) -> bool:
    """Return whether what was found is to be told; what is known was told `age` seconds ago."""
    if not known and not found:
        return False
    if _part(known, "failed") != _part(found, "failed") or not 0 <= age <= REFRESH:
        return True
    return age > NEWS and _messages(known) != _messages(found)


def _part(results: Mapping[str, Result], field: str) -> Mapping[str, Any]:
    return {name: each[field] for name, each in results.items()}


def _messages(results: Mapping[str, Result]) -> Mapping[str, Any]:
    return _part({n: each for n, each in results.items() if each["failed"]}, "message")


def _document(result: PromiseResult) -> Result:
    message = result.message
    if len(message) > MESSAGE_LENGTH:
        message = f"...{message[-MESSAGE_LENGTH:]}"
    return {
        "name": result.title,
        "title": result.title,
        "failed": result.failed,
        "message": message,
        "at": (result.since or result.date).isoformat(),
    }
